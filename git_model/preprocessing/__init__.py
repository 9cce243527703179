"""Files to tensors, text to token ids."""
