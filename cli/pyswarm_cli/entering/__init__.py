"""Into containers: terminals, conversations with commands, and files in and out."""
