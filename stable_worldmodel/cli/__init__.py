"""The command line `swm`: parse, call, print. It imports what a command needs when that command runs."""

from stable_worldmodel.cli.app import app, common, main

__all__ = ["app", "common", "main"]
