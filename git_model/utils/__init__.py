"""What every other folder uses: errors, strict settings, atomic writes, devices, kernels."""
