"""`lerobot`: datasets of the LeRobot project, read in versions 2.0 to 3.0 and written in 3.0."""

from stable_worldmodel.data.formats.lerobot.format import LeRobotFormat

__all__ = ["LeRobotFormat"]
