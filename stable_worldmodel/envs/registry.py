"""The ids of all environments, as data. Entry points are strings, so registering imports no simulator."""

from __future__ import annotations

from typing import Any

from gymnasium.envs import registration

WORLDS: set[str] = set()
DISCRETE_WORLDS: set[str] = set()

# id -> (module below this package : class, whether its actions are discrete)
_TABLE: dict[str, tuple[str, bool]] = {
    "swm/TwoRoom-v1": ("two_room.env:TwoRoomEnv", False),
}


def register(id: str, entry_point: str, discrete: bool = False, **kwargs: Any) -> None:
    """Register an environment with Gymnasium and list it in `WORLDS`, and in `DISCRETE_WORLDS` if `discrete`.

    Registering an id again replaces it; the same arguments twice change nothing.

    Args:
        id: e.g. "swm/TwoRoom-v1".
        entry_point: "package.module:Class", imported by the first `gymnasium.make(id)`.
        kwargs: passed on to `gymnasium.register`, such as `kwargs={...}` for the constructor.
    """
    registration.registry.pop(id, None)  # Gymnasium warns about an id it already has
    registration.register(id=id, entry_point=entry_point, **kwargs)
    WORLDS.add(id)
    (DISCRETE_WORLDS.add if discrete else DISCRETE_WORLDS.discard)(id)


def register_all() -> None:
    """Register every id of this library."""
    for id, (entry_point, discrete) in _TABLE.items():
        register(id, f"{__package__}.{entry_point}", discrete)
