"""The flags of `service create` and `service update`: one module for each part of the specification."""
