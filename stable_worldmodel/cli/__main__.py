"""`python -m stable_worldmodel.cli`."""

from stable_worldmodel.cli.app import main

main()
