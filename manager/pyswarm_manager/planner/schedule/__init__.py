"""Schedule: which node each waiting task runs on. Filters say why a node cannot, scoring spreads over the others."""
