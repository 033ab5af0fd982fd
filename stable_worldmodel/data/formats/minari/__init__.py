"""`minari`: datasets of the Minari project, read only."""

from stable_worldmodel.data.formats.minari.format import MinariFormat

__all__ = ["MinariFormat"]
