"""Join the stages for one command, and watch over it."""
