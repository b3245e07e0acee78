"""What verification compares: one part for each kind of kernel state that the overlay keeps (see `verified`)."""
