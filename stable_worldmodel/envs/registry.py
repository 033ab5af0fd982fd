"""The ids of all environments, as data. Entry points are strings, so registering imports no simulator."""

from __future__ import annotations

import difflib
import importlib
import itertools
import warnings
from typing import Any

from gymnasium import error
from gymnasium.envs import registration

WORLDS: set[str] = set()
DISCRETE_WORLDS: set[str] = set()

# id -> (module below this package : class, whether its actions are discrete)
_TABLE: dict[str, tuple[str, bool]] = {
    "swm/PushT-v1": ("pusht.env:PushT", False),
    "swm/PushT-Discrete-v1": ("pusht:PushTDiscrete", True),
    "swm/TwoRoom-v1": ("two_room.env:TwoRoomEnv", False),
    "swm/TwoRoom-v0": ("two_room.legacy_env:TwoRoomEnv", False),
    "swm/Piecewise-v0": ("piecewise.piecewise_env:PiecewiseEnv", False),
    "swm/SimplePointMaze-v0": ("simple_point_maze:SimplePointMazeEnv", False),
    "swm/VoidRun-v0": ("voidrun:VoidRunEnv", True),
    "swm/ImagePositioning-v1": ("image_positioning:ImagePositioning", False),
    "swm/SimpleNavigation-v0": ("simple_nav.env:SimpleNavigationEnv", True),
    "swm/CartPoleControl-v1": ("gymnasium_control.cartpole:CartPoleWrapper", True),
    "swm/MountainCarControl-v0": ("gymnasium_control.mountain_car:MountainCarWrapper", True),
    "swm/MountainCarContinuousControl-v0": ("gymnasium_control.mountain_car:MountainCarContinuousWrapper", False),
    "swm/AcrobotControl-v1": ("gymnasium_control.acrobot:AcrobotWrapper", True),
    "swm/PendulumControl-v1": ("gymnasium_control.pendulum:PendulumWrapper", False),
    "swm/AcrobotDMControl-v0": ("dmcontrol.acrobot:AcrobotDMControlWrapper", False),
    "swm/BallInCupDMControl-v0": ("dmcontrol.ball_in_cup:BallInCupDMControlWrapper", False),
    "swm/CartpoleDMControl-v0": ("dmcontrol.cartpole:CartpoleDMControlWrapper", False),
    "swm/CheetahDMControl-v0": ("dmcontrol.cheetah:CheetahDMControlWrapper", False),
    "swm/FingerDMControl-v0": ("dmcontrol.finger:FingerDMControlWrapper", False),
    "swm/HopperDMControl-v0": ("dmcontrol.hopper:HopperDMControlWrapper", False),
    "swm/HumanoidDMControl-v0": ("dmcontrol.humanoid:HumanoidDMControlWrapper", False),
    "swm/ManipulatorDMControl-v0": ("dmcontrol.manipulator:ManipulatorDMControlWrapper", False),
    "swm/PendulumDMControl-v0": ("dmcontrol.pendulum:PendulumDMControlWrapper", False),
    "swm/QuadrupedDMControl-v0": ("dmcontrol.quadruped:QuadrupedDMControlWrapper", False),
    "swm/ReacherDMControl-v0": ("dmcontrol.reacher:ReacherDMControlWrapper", False),
    "swm/WalkerDMControl-v0": ("dmcontrol.walker:WalkerDMControlWrapper", False),
    "swm/OGBCube-v0": ("ogbench.cube_env:CubeEnv", False),
    "swm/OGBScene-v0": ("ogbench.scene_env:SceneEnv", False),
    "swm/OGBMaze-v0": ("ogbench.maze_env:MazeEnv", False),
    "swm/ALE-v5": ("ale.env:ALEEnv", True),
    "swm/PFRocketLanding-v0": ("rocket_landing.pyflyt_rocketlanding:RocketLandingEnv", False),
    "swm/CraftaxPixels-v1": ("craftax.craftax:CraftaxPixelsWrapper", True),
    "swm/CraftaxSymbolic-v1": ("craftax.craftax:CraftaxSymbolicWrapper", True),
    "swm/CraftaxClassicPixels-v1": ("craftax.craftax:CraftaxClassicPixelsWrapper", True),
    "swm/CraftaxClassicSymbolic-v1": ("craftax.craftax:CraftaxClassicSymbolicWrapper", True),
}


# Fetch tasks of Gymnasium-Robotics: suffix of ours -> (suffix of theirs, whether observations are one array)
_FETCH_TASKS = ("Reach", "Push", "Slide", "PickAndPlace")
_FETCH_KINDS = {"": ("", True), "Dense": ("Dense", True), "Dict": ("", False)}

# id -> the class, in the module of its env, that steps several of them as one program
_VECTOR_TABLE = {
    "swm/TwoRoom-v1": "TwoRoomVectorEnv",
    "swm/Piecewise-v0": "PiecewiseVectorEnv",
    "swm/SimplePointMaze-v0": "SimplePointMazeVectorEnv",
    "swm/SimpleNavigation-v0": "SimpleNavigationVectorEnv",
}


# Gymnasium takes a version for a release of one environment and tells users of an older one to upgrade. These are other
# environments, which published data was recorded in.
_NOT_OUTDATED = ("swm/TwoRoom-v0",)


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
    for id in _NOT_OUTDATED:
        warnings.filterwarnings("ignore", f".*The environment {id} is out of date", DeprecationWarning)
    for id, (entry_point, discrete) in _TABLE.items():
        module = f"{__package__}.{entry_point.partition(':')[0]}"
        vector = {"vector_entry_point": f"{module}:{_VECTOR_TABLE[id]}"} if id in _VECTOR_TABLE else {}
        register(id, f"{__package__}.{entry_point}", discrete, **vector)
    for task, (kind, (theirs, flatten)) in itertools.product(_FETCH_TASKS, _FETCH_KINDS.items()):
        arguments = {"env_id": f"Fetch{task}{theirs}-v4", "flatten": flatten}
        entry_point = f"{__package__}.gymnasium_robotics.fetch:FetchWrapper"
        register(f"swm/Fetch{task}{kind}-v3", entry_point, kwargs=arguments)


def resolve_id(name: str) -> str:
    """The registered id that `name` means: itself, or `swm/<name>`. Ids `ALE/<Game>-v5` are those of the package.

    Raises gymnasium's NameNotFound, listing close ids, when neither is registered. Ids that Gymnasium can import
    ("module:id") or complete (no version) are left to it.
    """
    if name.startswith("ALE/"):
        importlib.import_module(f"{__package__}.ale").load()  # the package registers its games
    for candidate in (name, f"swm/{name}"):
        if candidate in registration.registry:
            return candidate
    try:
        registration.spec(name)
    except error.UnregisteredEnv as unknown:
        short = {id.rpartition("/")[2]: id for id in registration.registry}
        close = difflib.get_close_matches(name.rpartition("/")[2], short, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(repr(short[match]) for match in close)}?" if close else ""
        raise error.NameNotFound(f"no environment {name!r} is registered{hint}") from unknown
    return name
