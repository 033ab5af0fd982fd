"""The environments. Importing this package registers every `swm/` id with Gymnasium and imports no simulator."""

from stable_worldmodel.envs.registry import DISCRETE_WORLDS, WORLDS, register, register_all, resolve_id

register_all()

__all__ = ["DISCRETE_WORLDS", "WORLDS", "register", "resolve_id"]
