"""Commands with many options, and the options that several commands share."""
