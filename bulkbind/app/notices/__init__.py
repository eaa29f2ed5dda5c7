"""How a command ended: the text, metrics and notifications."""
