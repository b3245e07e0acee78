"""The parts of a service specification, each made from the flags that belong to it."""
