"""The dispatcher's decisions, pure: assignments and their differences, network tables, heartbeats, reports.

Time comes in as an argument; nothing here waits, sends or stores. The shell around it is `pyswarm_manager.dispatcher`.
"""
