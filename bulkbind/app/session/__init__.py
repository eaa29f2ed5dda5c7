"""What joins the stages for one command, and watches over it."""
