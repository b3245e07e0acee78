"""`python -m pyswarm_manager`."""

from pyswarm_manager.main import main

main()
