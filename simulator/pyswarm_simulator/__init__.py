"""The whole cluster in one process, under virtual time, from one seed."""
