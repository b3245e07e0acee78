"""Orchestrate: which tasks should exist, and what happens to each that does. One engine for all service modes."""
