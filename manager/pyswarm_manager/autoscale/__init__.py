"""Autoscaling: from what tasks use to how many there should be. The leader's; decisions are kept in the services."""
