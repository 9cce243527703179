"""GIT, the Generative Image-to-text Transformer, from scratch in PyTorch."""
