"""Secrets and configs: their versions, and how services go on to the next ones."""
