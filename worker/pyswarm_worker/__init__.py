"""The agent: what one node does for the cluster.

It keeps a session with the leading manager, holds the node's assignments on disk, walks every task through its states
and reports them. It decides nothing about the cluster: what runs where comes from the managers, and goes on running
while there are none.
"""
