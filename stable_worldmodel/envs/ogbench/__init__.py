"""OGBench: Cube, Scene and Maze with factors of variation, and the package's oracles as policies."""

from typing import TYPE_CHECKING

from stable_worldmodel.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from stable_worldmodel.envs.ogbench.cube_env import CubeEnv
    from stable_worldmodel.envs.ogbench.expert import ExpertPolicy
    from stable_worldmodel.envs.ogbench.maze_env import MazeEnv
    from stable_worldmodel.envs.ogbench.maze_expert import MazeExpertPolicy
    from stable_worldmodel.envs.ogbench.scene_env import SceneEnv

_LAZY = {
    "CubeEnv": "cube_env",
    "ExpertPolicy": "expert",
    "MazeEnv": "maze_env",
    "MazeExpertPolicy": "maze_expert",
    "SceneEnv": "scene_env",
}

__all__ = ["CubeEnv", "ExpertPolicy", "MazeEnv", "MazeExpertPolicy", "SceneEnv"]

__getattr__ = lazy_exports(__name__, {name: f"{__name__}.{module}" for name, module in _LAZY.items()})
