"""What would happen: the real planner on a copy of the state, with agents that do at once what they are told."""
