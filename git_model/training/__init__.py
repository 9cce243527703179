"""Training: the recipe, the initial model, loss, optimizer, parallelism, state and the loop."""
