"""People: their tokens and certificates, the HTTPS door for tokens, and the log of what they changed."""
