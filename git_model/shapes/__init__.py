"""The procedural world of the built-in model: pictures, clips, and what is said of them."""
