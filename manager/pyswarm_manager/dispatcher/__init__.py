"""Sessions of the agents with the leader: what each node is to do, how it is, and what its tasks report.

Decides the status of nodes and which node hears of what; never what should run or where (that is the planner). Only the
leader serves sessions, and losing the lead ends them all: agents go on with what they have, and find the next leader.
"""
