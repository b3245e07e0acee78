"""The decisions of the overlay, as pure functions: no kernel, no clock, no randomness, no files."""
