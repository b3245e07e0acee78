"""What must hold, and what must come to hold."""
