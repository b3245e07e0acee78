"""Readers of what users type: pure functions from text to values, each raising InvalidArgument with one sentence."""
