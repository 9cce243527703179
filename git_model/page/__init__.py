"""A page to play with: what it does, how it looks, and its parts on the screen."""
