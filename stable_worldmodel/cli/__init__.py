"""The command line `swm`: parse, call, print. It imports what a command needs when that command runs."""

from stable_worldmodel.cli.app import app, common, main
from stable_worldmodel.cli.catalog import delete, display_dataset_info, display_world_info, list_cmd, show

__all__ = ["app", "common", "delete", "display_dataset_info", "display_world_info", "list_cmd", "main", "show"]
