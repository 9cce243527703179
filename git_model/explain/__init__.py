"""Why the model generates a text: attention and alternatives, as figures and as a report."""
