"""What there is to learn from: data sets in their forms, and the batches of each step."""
