"""Where a way through the networks stops: looked at in the kernel, step by step. Changes nothing."""
