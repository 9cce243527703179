"""Training: a recipe, where a run starts, the processes that learn, and the loop."""
