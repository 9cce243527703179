"""Why the model says what it says: recorded from outside, in pictures and on a page."""
