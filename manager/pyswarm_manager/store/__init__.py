"""The replicated store: immutable objects in plain tables, changed only by change sets that went through Raft.

Nothing is re-exported here, so that the planner can use the tables without importing the store's shell.
"""
