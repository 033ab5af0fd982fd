"""The contract of all environments notices what it is there to notice."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from envs.contract import RestorableContract
from gymnasium.utils.env_checker import check_env

from stable_worldmodel import spaces
from stable_worldmodel.envs.env2d import PointEnv
from stable_worldmodel.envs.variation import FactorSpace

_HISTORY: list[float] = []  # what a flawed env shares with its likes


class Layout:
    def __init__(self, speed: float):
        self.speed = speed

    def move(self, position: Any, action: Any) -> tuple[float, float]:
        x, y = (min(max(p + self.speed * a, 0.0), 100.0) for p, a in zip(position, action, strict=True))
        return x, y


class ToyFactors(FactorSpace):
    def __init__(self) -> None:
        point = {"low": 10, "high": 90, "shape": (2,), "dtype": np.float32}
        super().__init__(
            {
                "background": {"color": spaces.RGBBox(init_value=(255, 255, 255))},
                "agent": {
                    "color": spaces.RGBBox(init_value=(255, 0, 0)),
                    "speed": spaces.Box(1, 5, (1,), np.float32, init_value=3),
                    "position": spaces.Box(**point, init_value=(20, 20)),
                },
                "target": {"position": spaces.Box(**point, init_value=(80, 80))},
            }
        )

    def draw(self, seed: int | None, options: Any) -> None:
        self.draw_factors(seed, options, ("agent.position", "target.position"))

    def layout(self) -> Layout:
        return Layout(self.value_of("agent.speed").item())


class Toy(PointEnv):
    """A dot in a square. `flaw` names what is wrong with it."""

    name, side = "Toy", 100.0

    def __init__(self, flaw: str | None = None, render_mode: str | None = "rgb_array"):
        super().__init__(ToyFactors(), render_mode, None, (32, 32))
        self.flaw = flaw
        self.observation_space = gym.spaces.Box(0, 5 if flaw == "bounds" else 100, (2,), np.float32)
        self.action_space = gym.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict[str, Any]]:
        options = dict(options or {})
        if self.flaw == "goal follows the seed" and options.get("target_state") is None and seed is not None:
            # Whatever is varied, the goal differs from seed to seed: that must not count as an effect of a factor.
            options["target_state"] = np.random.default_rng(seed).uniform(0, 100, 2)
        if self.flaw == "forgets the seed":
            seed = None
        if self.flaw == "takes any name":
            options["variation"] = [n for n in options.get("variation") or () if n == "all" or n in self._names()]
        if self.flaw == "global randomness":
            options["state"] = (random.random() * 100, 50.0)
        result = super().reset(seed=seed, options=options)
        if self.flaw == "remembers":
            self._place((self._position[0], min(100.0, self._position[1] + getattr(self, "_episodes", 0))))
            self._episodes = getattr(self, "_episodes", 0) + 1
            return self._observation(), self._info()
        return result

    def _names(self) -> list[str]:
        return self.variation_space.names()

    def _observation(self) -> np.ndarray:
        return self._agent.copy()

    def _is_success(self, distance: float) -> bool:
        return distance < 3

    def _move(self, action: Any) -> None:
        super()._move(action)
        if self.flaw == "shares":
            _HISTORY.append(self._position[0])
            self._place((self._position[0], len(_HISTORY) % 90 + 1))

    def _prepare_picture(self) -> None:
        color = self.variation_space.value_of("background.color")
        self._backdrop = np.empty((*self._shape, 3), np.uint8)
        self._backdrop[:] = color

    def _draw_goal(self) -> np.ndarray:
        return self._dot(self._goal_position)

    def _picture(self) -> np.ndarray:
        if self.flaw == "rendering moves":
            self._place((min(self._position[0] + 0.5, 100.0), self._position[1]))
        if self.flaw == "same array":
            self._backdrop = self._dot(self._position)
            return self._backdrop
        return self._dot(self._position)

    def _dot(self, position: Any) -> np.ndarray:
        picture = self._backdrop if self.flaw == "same array" else self._backdrop.copy()
        x, y = (min(int(p / 100 * size), size - 1) for p, size in zip(position, self._shape[::-1], strict=True))
        inert = self.flaw in ("inert", "goal follows the seed")
        picture[y, x] = (255, 0, 0) if inert else self.variation_space.value_of("agent.color")
        return picture

    def _info(self) -> dict[str, Any]:
        if self.flaw == "draws goals anew":
            self._goal = self._draw_goal()
        return super()._info()

    def sample_goal(self, seed: int | None = None) -> np.ndarray:
        if self.flaw == "sampling moves":
            self._place((0.0, 0.0))
        return np.random.default_rng(seed).uniform(10, 90, 2).astype(np.float32)

    def reset_options_from_dataset(self, init_row: Any, goal_row: Any) -> dict[str, Any]:
        options = super().reset_options_from_dataset(init_row, goal_row)
        if self.flaw == "loses factors":
            options["variation_values"] = {}
        return options


class Checks(RestorableContract):
    """Not collected by its name: its tests are called by those below."""

    def __init__(self, flaw: str | None):
        self.flaw = flaw

    def make(self, size: tuple[int, int] | None = (32, 32)) -> Any:
        env = Toy(self.flaw)
        if size is not None:
            env.render_shape = size
        return env


FLAWS = {
    "bounds": "test_observations_are_numpy_arrays_of_the_declared_space",
    "forgets the seed": "test_an_episode_is_a_function_of_its_seed",
    "remembers": "test_an_episode_is_a_function_of_its_seed",
    "shares": "test_envs_side_by_side_do_not_disturb_each_other",
    "global randomness": "test_global_random_states_are_neither_read_nor_changed",
    "rendering moves": "test_rendering_changes_nothing",
    "same array": "test_every_picture_is_a_new_array",
    "draws goals anew": "test_goal_is_one_picture_drawn_once_per_episode",
    "sampling moves": "test_sampled_goals_follow_the_seed_and_change_nothing",
    "inert": "test_every_factor_has_an_effect_unless_declared_inert",
    "goal follows the seed": "test_every_factor_has_an_effect_unless_declared_inert",
    "loses factors": "test_recorded_factors_are_restored_exactly",
}


@pytest.mark.parametrize("check", sorted(set(FLAWS.values())))
def test_a_sound_env_passes(check: str) -> None:
    getattr(Checks(None), check)()


@pytest.mark.parametrize(("flaw", "check"), FLAWS.items())
def test_a_flaw_is_noticed(flaw: str, check: str) -> None:
    with pytest.raises(AssertionError):
        getattr(Checks(flaw), check)()


def test_a_typo_that_is_taken_is_noticed() -> None:
    Checks(None).test_unknown_factors_are_refused_with_a_suggestion("variation")
    with pytest.raises(pytest.fail.Exception):
        Checks("takes any name").test_unknown_factors_are_refused_with_a_suggestion("variation")


# ---------------------------------------------------------------------- the documented example
def example() -> type:
    page = Path(__file__).parents[2] / "docs" / "environments" / "add.md"
    source = re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)[0]
    names: dict[str, Any] = {"__name__": __name__}
    exec(source, names)
    return names["SliderEnv"]


class TestDocumentedExample(RestorableContract):
    # Copies are made by pickling, which an env from a page does not survive.
    test_a_copy_goes_on_alone = None

    def make(self, size: tuple[int, int] | None = (32, 32)) -> Any:
        env = example()()
        if size is not None:
            env.render_shape = size
        return env

    def test_gymnasium_finds_no_fault(self) -> None:
        check_env(self.make(), skip_render_check=True)  # other render modes need an id
