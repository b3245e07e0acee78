"""The commands: each reads its flags, makes one or a few calls, and shows the answer. Decisions are elsewhere."""
