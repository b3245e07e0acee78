"""Containers on one host: images, snapshots, containers, logs.

A library with an asynchronous API of plain values. It knows nothing of clusters: a node's agent uses it, and so may any
other program (see docs/agent-runtime.md).
"""
