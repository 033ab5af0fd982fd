"""Two rooms, one agent, and doors in the wall between them."""

from stable_worldmodel.envs.two_room.env import TwoRoomEnv
from stable_worldmodel.envs.two_room.expert import ExpertPolicy

__all__ = ["ExpertPolicy", "TwoRoomEnv"]
