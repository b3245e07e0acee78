"""`python -m pyswarm_node`."""

from pyswarm_node.main import main

main()
