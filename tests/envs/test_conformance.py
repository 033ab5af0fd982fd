"""Every registered environment keeps the contract. To register an id is to have it tested.

An environment with another construction, or with more to say, subclasses the contract in its own test file. So do those
that other packages simulate, which take longer.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from envs.contract import RestorableContract, assert_same, columns, goal_columns, lifted
from gymnasium.utils.env_checker import check_env

from stable_worldmodel.envs import WORLDS
from stable_worldmodel.utils import flatten_dict

Actions = Callable[[Any, int], list[Any]]


@dataclass(frozen=True)
class Case:
    """What is peculiar to one environment; see EnvContract for the first four.

    Attributes:
        actions: the actions of an episode, (env, count) -> list; None draws them.
        before: called before an episode's first action.
        same_goal: the goal's picture is that of an env restored to the goal state.
        same_picture: a restored env looks as it did.
        chance: what happens depends on chance, so a restored env goes on differently.
        own_part: as many entries of a state are the agent's own; goals are compared in them.
        warns: warnings of Gymnasium's checker that come with Gymnasium's own spaces.
        windows: it has a window, whose mode returns a picture too; the checker would complain.
        stays_within: random actions keep observations in bounds.
    """

    kwargs: dict[str, Any] = field(default_factory=dict)
    revealing: dict[str, Any] = field(default_factory=dict)
    inert: tuple[str, ...] = ()
    native_size: tuple[int, int] = (224, 224)
    actions: Actions | None = None
    before: Callable[[Any], None] | None = None
    same_goal: bool = True
    same_picture: bool = True
    chance: bool = False
    own_part: int | None = None
    warns: tuple[str, ...] = ()
    windows: bool = False
    stays_within: bool = True


def _wandering(env: Any, count: int) -> list[Any]:
    """VoidRun: around a corner first, so that cells are left and void is met."""
    env.action_space.seed(7)
    return [3, 0, 3, 1, 1, 2, 2, 0, 0, 3, *(env.action_space.sample() for _ in range(count))][:count]


def _to_the_wall(env: Any, count: int) -> list[Any]:
    return [np.array([1.0, 0.05 * i], np.float32) for i in range(count)]


def _balancing(env: Any, count: int) -> list[Any]:
    return [i % 2 for i in range(count)]  # a fallen pole leaves the declared space


def _pushing(env: Any, count: int) -> list[Any]:
    return [np.array([-2.0 if i % 7 == 3 else 2.0], np.float32) for i in range(count)]


_BOX_WARNINGS = (".*A Box observation space m.*infinity", ".*For Box action spaces, we recommend")
_CAR = Case(native_size=(400, 600), before=lambda env: env.set_state([-0.6, -0.1]))  # as fast as it gets
_PUSHT = Case(inert=("goal.scale", "agent.angle"), windows=True, stays_within=False)
CASES = {
    "swm/PushT-v1": _PUSHT,
    "swm/PushT-Discrete-v1": _PUSHT,
    "swm/TwoRoom-v1": Case(revealing={"rendering.render_target": 1}, inert=("task.min_steps",)),
    "swm/TwoRoom-v0": Case(
        kwargs={"render_target": True},
        revealing={"door.number": 3, "door.position": (60, 200, 350)},
        actions=_to_the_wall,
        own_part=2,
    ),
    "swm/Piecewise-v0": Case(
        revealing={f"rendering.render_{what}": 1 for what in ("target", "zones", "bias_field")},
        inert=("task.min_steps",),
    ),
    "swm/SimpleNavigation-v0": Case(own_part=3),
    "swm/VoidRun-v0": Case(
        revealing={"board.size": 10, "agent.position": (9, 9), "board.prob_gravel": 1.0},
        inert=("board.prob_break",),
        actions=_wandering,
        chance=True,
        same_goal=False,  # the board in it is empty
    ),
    "swm/CartPoleControl-v1": Case(native_size=(400, 600), actions=_balancing, warns=_BOX_WARNINGS),
    "swm/MountainCarControl-v0": _CAR,
    "swm/MountainCarContinuousControl-v0": _CAR,
    "swm/AcrobotControl-v1": Case(native_size=(500, 500)),
    "swm/PendulumControl-v1": Case(
        native_size=(500, 500),
        actions=_pushing,
        before=lambda env: env.set_state([3.0, 7.9]),
        same_picture=False,  # the arrow of the last torque is not part of the state
        warns=_BOX_WARNINGS,
    ),
}

# Part of an entry point.
_ELSEWHERE = re.compile(r"\.(dmcontrol|ogbench\w*|gymnasium_robotics|ale|craftax|rocket_landing)[.:]")
HERE = [id for id in sorted(WORLDS) if not _ELSEWHERE.search(str(gym.spec(id).entry_point))]


@pytest.mark.parametrize("id", sorted(WORLDS - set(HERE)))
def test_every_other_id_has_a_contract_of_its_own(id: str) -> None:
    sources = [path.read_text() for path in Path(__file__).parent.glob("test_*_contract.py")]
    assert any(f'id = "{id}"' in source for source in sources)


@pytest.mark.parametrize("id", HERE)
def test_id_is_documented(id: str) -> None:
    assert f"`{id}`" in (Path(__file__).parents[2] / "docs" / "environments" / "index.md").read_text()


def test_making_any_of_them_warns_of_nothing() -> None:
    code = f"""
import gymnasium as gym
import stable_worldmodel.envs
for id in {HERE}:
    env = gym.make(id)
    env.reset(seed=0)
    env.close()
"""
    command = [sys.executable, "-W", "default::DeprecationWarning", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.filterwarnings("ignore:.*TwoRoom-v0 is out of date")  # pytest puts our own filter aside
@pytest.mark.filterwarnings("ignore:.*already returned terminated")
class TestEveryEnvironment(RestorableContract):
    @pytest.fixture(autouse=True, params=HERE)
    def _one(self, request: pytest.FixtureRequest) -> None:
        self.id = request.param
        self.case = CASES.get(self.id, Case())
        self.kwargs, self.revealing = self.case.kwargs, self.case.revealing  # type: ignore[misc]
        self.inert, self.native_size = dict.fromkeys(self.case.inert, ""), self.case.native_size  # type: ignore[misc]

    def actions(self, env: Any, count: int = 20) -> list[Any]:
        if self.case.before is not None:
            self.case.before(env)
        return super().actions(env, count) if self.case.actions is None else self.case.actions(env, count)

    def record(self, *args: Any, **kwargs: Any) -> list[dict]:
        return [lifted(row) for row in super().record(*args, **kwargs)]

    # ------------------------------------------------------------------ Gymnasium
    def test_gymnasium_finds_no_fault(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", message=".*TwoRoom-v0 is out of date")  # the checker makes it by its id
            for inherited in self.case.warns:
                warnings.filterwarnings("ignore", message=inherited)
            check_env(self.make(), skip_render_check=self.case.windows)

    def test_observations_are_numpy_arrays_of_the_declared_space(self) -> None:
        env = self.make()
        observation, _ = env.reset(seed=0, options={"variation": ["all"]})
        assert env.observation_space.contains(observation)
        if self.case.stays_within:
            for action in self.actions(env):
                assert env.observation_space.contains(env.step(action)[0])

    def test_seeds_differ(self) -> None:
        env = self.make()
        first = [lifted({"observation": env.reset(seed=seed)[0]}) for seed in range(4)]
        for rows in itertools.combinations(first, 2):
            assert any(not np.array_equal(rows[0][key], rows[1][key]) for key in rows[0])

    # ------------------------------------------------------------------ restoring
    def test_a_restored_row_goes_on_as_it_was_recorded(self) -> None:
        start, steps = 6, 0 if self.case.chance else 5
        env, other = self.make(), self.make()
        rows = self.record(env, seed=8, options={"variation": ["all"]})
        goal_row = {key: value for key, value in columns_of_goal(rows[start]).items() if "goal_state" in rows[0]}
        options = other.reset_options_from_dataset({**columns(rows[start]), **recorded(env)}, goal_row)
        _, info = other.reset(seed=99, options=options)
        actions = self.recorded_actions(env)[start : start + steps]
        for action, row in zip([None, *actions], rows[start:], strict=False):
            if action is not None:
                info = other.step(action)[4]
            for key in ("state", "raw_state", "goal_state"):
                np.testing.assert_array_equal(info.get(key, row.get(key)), row.get(key), err_msg=key)
            if self.case.same_picture:
                np.testing.assert_array_equal(other.render(), row["pixels"])

    def test_a_later_row_becomes_the_goal(self) -> None:
        env, other = self.make(), self.make()
        rows = self.record(env, seed=8, options={"variation": ["all"]})
        if "goal_state" not in rows[0]:
            return
        options = other.reset_options_from_dataset({**columns(rows[6]), **recorded(env)}, goal_columns(rows[15]))
        goal = other.reset(seed=99, options=options)[1]["goal_state"]
        np.testing.assert_array_equal(goal[: self.case.own_part], rows[15]["state"][: self.case.own_part])

    def recorded_actions(self, env: Any) -> list[Any]:
        """The actions that `record` takes, without touching the env."""
        return super().actions(env) if self.case.actions is None else self.case.actions(env, 20)

    def test_recorded_factors_are_restored_exactly(self) -> None:
        env = self.make()
        rows = self.record(env, seed=8, options={"variation": ["all"]})
        values = flatten_dict(env.variation_space.value)
        options = env.reset_options_from_dataset({**columns(rows[0]), **recorded(env)}, goal_columns(rows[0]))
        options.pop("target_state", None)  # a goal elsewhere moves the target
        env.reset(seed=99, options=options)
        assert_same([flatten_dict(env.variation_space.value)], [values])

    def test_a_missing_column_is_named(self) -> None:
        env = self.make()
        row = columns(self.record(env)[0])
        with pytest.raises(KeyError, match=r"state|board"):
            env.reset_options_from_dataset({}, goal_columns(row))
        if "goal_state" in self.record(env)[0]:
            with pytest.raises(KeyError, match="goal_state"):
                env.reset_options_from_dataset(row, {})

    # ------------------------------------------------------------------ goals
    def test_goal_picture_shows_the_goal_state(self) -> None:
        env = self.make()
        row = self.record(env, seed=3)[0]
        if not self.case.same_goal or "goal_state" not in row:
            return
        board = {"board": row["board"]} if "board" in row else {}
        there = {"state": row["goal_state"], **board, **recorded(env)}
        env.reset(seed=3, options=env.reset_options_from_dataset(there, {"goal_state": row["goal_state"]}))
        np.testing.assert_array_equal(env.render(), row["goal"])


def recorded(env: Any) -> dict[str, np.ndarray]:
    """The factors as formats store them that know only arrays."""
    values = flatten_dict(env.variation_space.value)
    return {f"variation.{name}": np.atleast_1d(value) for name, value in values.items()}


def columns_of_goal(row: dict) -> dict[str, Any]:
    """A goal row that stands for the goal that the row already had."""
    return {**goal_columns(row), "goal_state": row.get("goal_state")}
