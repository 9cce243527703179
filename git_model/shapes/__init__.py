"""The procedural world of the built-in model: images, clips, captions and questions."""
