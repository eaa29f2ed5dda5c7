"""How a command ended, and who is notified of it."""
