"""How good a model is: what it says about a data set, and its scores."""
