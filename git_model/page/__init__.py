"""The web page: its actions, its HTML, its layout in gradio, and what it accepts from browsers."""
