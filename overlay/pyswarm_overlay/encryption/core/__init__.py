"""What encryption decides: addresses, wanted peers, when keys change, and the messages that say so. Pure."""
