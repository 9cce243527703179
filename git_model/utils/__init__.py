"""Common parts of all other folders: errors, strict settings, atomic writes, devices, kernels."""
