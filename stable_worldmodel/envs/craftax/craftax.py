"""`swm/Craftax…-v1`: Craftax with factors of variation, restored from recorded rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from PIL import Image

from stable_worldmodel import spaces
from stable_worldmodel.envs.craftax.program import Program, program
from stable_worldmodel.envs.env2d import column
from stable_worldmodel.envs.resizable import Resizable
from stable_worldmodel.envs.variation import FactorSpace, recorded_factors
from stable_worldmodel.errors import ContractError

# Factor -> (parameter of the package, low, high); high None stands for a switch. The default is the package's.
FULL = {
    "mobs.despawn_distance": ("mob_despawn_distance", 8, 20),
    "player.god_mode": ("god_mode", 0, None),
}
CLASSIC = {
    "world.day_length": ("day_length", 30, 600),
    "world.always_diamond": ("always_diamond", 0, None),
    "mobs.despawn_distance": ("mob_despawn_distance", 8, 20),
    "mobs.cow_health": ("cow_health", 1, 10),
    "mobs.zombie_health": ("zombie_health", 1, 10),
    "mobs.skeleton_health": ("skeleton_health", 1, 10),
    "mobs.cow_chance": ("spawn_cow_chance", 0.0, 1.0),
    "mobs.zombie_chance": ("spawn_zombie_base_chance", 0.0, 1.0),
    "mobs.zombie_night_chance": ("spawn_zombie_night_chance", 0.0, 1.0),
    "mobs.skeleton_chance": ("spawn_skeleton_chance", 0.0, 1.0),
}


class CraftaxWrapper(Resizable, gym.Env):
    """One variant of Craftax, without automatic resets. Nothing is varied unless asked for.

    Observations are float32 in [0, 1], rewards the package's; the end of an episode, of time too, is a termination.

    Info: `env_name`; `achievements`, uint8, 1 where unlocked; `discount`, 0 at the end; `is_success`: all are unlocked;
    and where `restorable`, `state`, uint8 (20,952 or 273,276), and `key`, uint32 (2,), from which a row goes on as it
    was recorded; its own observation may differ in the last bit, as another program computes it.

    Reset options: `variation`, `variation_values`; `state` and `key` as recorded.

    Args:
        env_name: of the package, such as "Craftax-Pixels-v1".
        obs_shape: the shape that its observations must have.
        seed: of the first reset, if that has none.
        backend: of JAX, such as "cpu" or "gpu"; None for its default.
        render_mode: "rgb_array", or None for an env that is never rendered.
        restorable: whether info holds what restores a row.
        init_value: mapping factor name -> default, for the life of the env.

    Attributes:
        render_shape: (H, W) of `render()`; may be set at any time.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(
        self,
        env_name: str,
        obs_shape: tuple[int, ...],
        seed: int = 0,
        backend: str | None = None,
        render_mode: str | None = None,
        restorable: bool = True,
        init_value: Mapping[str, Any] | None = None,
    ):
        if render_mode not in (None, "rgb_array"):
            raise ContractError(f"render_mode={render_mode!r}: expected 'rgb_array' or None")
        self.env_name, self.backend, self.render_mode, self.restorable = env_name, backend, render_mode, restorable
        if self._program.shape != tuple(obs_shape):
            raise ContractError(f"obs_shape={obs_shape}: {env_name} has {self._program.shape}")
        self.observation_space = gym.spaces.Box(0.0, 1.0, obs_shape, np.float32)
        self.action_space = gym.spaces.Discrete(self._program.num_actions)
        self._table = CLASSIC if "Classic" in env_name else FULL
        self.variation_space = self._factors()
        if init_value:
            self.variation_space.set_init_value(init_value)
        self._key = self._program.key(seed)
        self._shape: tuple[int, int] = (63, 63) if "Classic" in env_name else (130, 110)
        self._state: Any = None

    @property
    def _program(self) -> Program:
        return program(self.env_name, self.backend)

    def _factors(self) -> FactorSpace:
        groups: dict[str, dict[str, Any]] = {}
        for dotted, (parameter, low, high) in self._table.items():
            group, _, name = dotted.partition(".")
            default = getattr(self._program.params, parameter)
            groups.setdefault(group, {})[name] = _space(default, low, high)
        return FactorSpace(groups)

    def _parameters(self) -> Any:
        """The package's parameters with the values of the factors, of the types that they had."""
        defaults = self._program.params
        values = {}
        for name, (parameter, *_) in self._table.items():
            value = np.asarray(self.variation_space.value_of(name)).reshape(-1)[0]
            values[parameter] = type(getattr(defaults, parameter))(value)
        return defaults.replace(**values)

    # ------------------------------------------------------------------ episode
    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; the same seed and options give the same one. See the class for `options`."""
        super().reset(seed=seed)
        options = options or {}
        self.variation_space.draw_factors(seed, options, ())
        self._params = self._parameters()
        if seed is not None:
            self._key = self._program.key(seed)
        if options.get("state") is None:
            self._key, key = self._program.split(self._key)
            observation, self._state = self._program.reset(key, self._params)
        else:
            self._state = self._program.unpacked(options["state"])
            if options.get("key") is not None:
                self._key = _checked_key(options["key"])
            observation = self._program.observe(self._state)
        return self._shown(observation), self._info(1.0)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Act once. Raises ContractError unless the action is an integer of the action space."""
        self._require_episode()
        if not self.action_space.contains(action):
            raise ContractError(f"action={action!r}: expected an integer 0..{self._program.num_actions - 1}")
        self._key, key = self._program.split(self._key)
        observation, self._state, reward, done, info = self._program.step(key, self._state, int(action), self._params)
        return self._shown(observation), float(reward), bool(done), False, self._info(float(info["discount"]))

    def _shown(self, observation: Any) -> np.ndarray:
        self._observation = np.asarray(observation, np.float32)
        return self._observation.copy()

    def _info(self, discount: float) -> dict[str, Any]:
        achievements = np.asarray(self._state.achievements).astype(np.uint8)
        info = {
            "env_name": self.env_name,
            "achievements": achievements,
            "discount": discount,
            "is_success": bool(achievements.all()),
        }
        if self.restorable:
            info |= {"state": self._program.packed(self._state), "key": self._key.copy()}
        return info

    def _require_episode(self) -> None:
        if self._state is None:
            raise gym.error.ResetNeeded(f"{type(self).__name__} has no episode yet; call reset() first")

    # ------------------------------------------------------------------ pictures
    def render(self) -> np.ndarray | None:
        """What the player sees, scaled to `render_shape`, uint8 (H, W, 3); None without a render mode.

        Symbolic variants are drawn by the programs of those with pixels, which compile at the first picture.
        """
        self._require_episode()
        if self.render_mode is None:
            return None
        pixels = self._observation
        if pixels.ndim != 3:
            pixels = np.asarray(program(self.env_name.replace("Symbolic", "Pixels"), self.backend).observe(self._state))
        picture = np.rint(np.clip(pixels, 0.0, 1.0) * 255.0).astype(np.uint8)
        if picture.shape[:2] == self._shape:
            return picture
        height, width = self._shape
        return np.array(Image.fromarray(picture).resize((width, height), Image.Resampling.BOX))

    # ------------------------------------------------------------------ restoring
    def reset_options_from_dataset(self, init_row: Mapping[str, Any], goal_row: Mapping[str, Any]) -> dict[str, Any]:
        """Reset options that restore a recorded row and every recorded `variation.*` factor.

        Args:
            init_row: column -> value; `state`, and `key` to go on with the same chances.
            goal_row: not used; there is no goal.

        Raises:
            MissingKeyError: `state` is missing.
        """
        options = {
            "variation": [],
            "variation_values": recorded_factors(init_row),
            "state": column(init_row, "state").reshape(-1),
        }
        return options | ({"key": init_row["key"]} if "key" in init_row else {})

    # ------------------------------------------------------------------ copies
    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if self._state is not None:
            state["_state"] = self._program.packed(self._state)
        state.pop("_params", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._state is not None:
            self._state, self._params = self._program.unpacked(self._state), self._parameters()


def _space(default: Any, low: float, high: float | None) -> Any:
    if high is None:
        return spaces.Discrete(2, init_value=int(default))
    if isinstance(default, int):
        return spaces.Discrete(int(high - low + 1), start=int(low), init_value=default)
    return spaces.Box(low, high, (1,), np.float64, init_value=[default])


def _checked_key(key: Any) -> np.ndarray:
    found = np.asarray(key).reshape(-1)
    if found.shape != (2,):
        raise ContractError(f"key has shape {np.shape(key)}: expected (2,), as in info")
    return found.astype(np.uint32)


class CraftaxPixelsWrapper(CraftaxWrapper):
    """Craftax seen as pixels (130, 110, 3); 43 actions. See CraftaxWrapper."""

    def __init__(self, **kwargs: Any):
        super().__init__("Craftax-Pixels-v1", (130, 110, 3), **kwargs)


class CraftaxSymbolicWrapper(CraftaxWrapper):
    """Craftax as numbers (8268,); 43 actions. See CraftaxWrapper."""

    def __init__(self, **kwargs: Any):
        super().__init__("Craftax-Symbolic-v1", (8268,), **kwargs)


class CraftaxClassicPixelsWrapper(CraftaxWrapper):
    """Craftax-Classic, which is Crafter, seen as pixels (63, 63, 3); 17 actions. See CraftaxWrapper."""

    def __init__(self, **kwargs: Any):
        super().__init__("Craftax-Classic-Pixels-v1", (63, 63, 3), **kwargs)


class CraftaxClassicSymbolicWrapper(CraftaxWrapper):
    """Craftax-Classic, which is Crafter, as numbers (1345,); 17 actions. See CraftaxWrapper."""

    def __init__(self, **kwargs: Any):
        super().__init__("Craftax-Classic-Symbolic-v1", (1345,), **kwargs)
