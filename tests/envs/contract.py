"""What every environment promises, as one test class: subclass it and name the env."""

from __future__ import annotations

import copy
import pickle
import random
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import stable_worldmodel.envs  # noqa: F401  (registers the ids)
from stable_worldmodel.errors import ContractError
from stable_worldmodel.utils import flatten_dict

SEEDS = range(12)
# What an agent can see or feel of an episode; other entries of info may just repeat a factor.
SHOWN = {"pixels", "goal", "observation", "state", "proprio", "raw_state", "board", "reward", "terminated", "truncated"}


class EnvContract:
    """Attributes a subclass sets.

    id, kwargs: what `gymnasium.make` gets.
    revealing: reset option `variation_values` under which every factor should show.
    inert: factor -> why it has no effect by design.
    goal_groups: groups of factors that may matter by the goal they lead to; all others must matter with the goal held.
    native_size: (H, W) of a picture nobody asked another size for.
    """

    id: str
    kwargs: ClassVar[dict[str, Any]] = {}
    revealing: ClassVar[dict[str, Any]] = {}
    inert: ClassVar[dict[str, str]] = {}
    goal_groups: ClassVar[tuple[str, ...]] = ("goal", "target", "task")
    native_size: ClassVar[tuple[int, int]] = (224, 224)

    def make(self, size: tuple[int, int] | None = (32, 32)) -> Any:
        env = gym.make(self.id, render_mode="rgb_array", disable_env_checker=True, **self.kwargs).unwrapped
        if size is not None:
            env.render_shape = size
        return env

    def actions(self, env: Any, count: int = 20) -> list[Any]:
        env.action_space.seed(7)
        return [env.action_space.sample() for _ in range(count)]

    def record(self, env: Any, seed: int | None = 0, options: dict | None = None, frames: bool = True) -> list[dict]:
        """All that an episode shows: one row per observation. It goes on after termination."""
        observation, info = env.reset(seed=seed, options=options)
        rows = [{"observation": observation, **info}]
        for action in self.actions(env):
            observation, reward, terminated, truncated, info = env.step(action)
            flags = {"reward": reward, "terminated": terminated, "truncated": truncated}
            rows.append({"observation": observation, **flags, **info})
            if frames:
                rows[-1]["pixels"] = env.render()
        return rows

    # ------------------------------------------------------------------ Gymnasium
    def test_gymnasium_finds_no_fault(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            check_env(self.make(), skip_render_check=False)

    def test_observations_are_numpy_arrays_of_the_declared_space(self) -> None:
        env = self.make()
        for row in self.record(env, options={"variation": ["all"]}):
            assert env.observation_space.contains(row["observation"])

    def test_info_keys_do_not_change_within_an_episode(self) -> None:
        rows = self.record(self.make(), frames=False)
        flags = {"reward", "terminated", "truncated"}
        assert all(row.keys() - flags == rows[0].keys() for row in rows)
        assert isinstance(rows[0]["env_name"], str)

    def test_every_row_says_whether_it_is_a_success(self) -> None:
        assert all(isinstance(row["is_success"], bool) for row in self.record(self.make(), frames=False))

    # ------------------------------------------------------------------ determinism
    def test_an_episode_is_a_function_of_its_seed(self) -> None:
        used = self.make()
        self.record(used, seed=5, options={"variation": ["all"]})
        for options in (None, {"variation": ["all"]}):
            assert_same(self.record(used, 3, options), self.record(self.make(), 3, options))

    def test_seeds_differ(self) -> None:
        env = self.make()
        first = [np.ravel(env.reset(seed=seed)[0]) for seed in range(4)]
        assert len({value.tobytes() for value in first}) == len(first)

    def test_unseeded_resets_continue_the_seeded_stream(self) -> None:
        ours, other = self.make(), self.make()
        for seed in (11, None, None):
            assert_same(self.record(ours, seed), self.record(other, seed))

    def test_envs_side_by_side_do_not_disturb_each_other(self) -> None:
        ours, other = self.make(), self.make()
        alone = self.record(self.make(), 3, {"variation": ["all"]})
        observation, info = ours.reset(seed=3, options={"variation": ["all"]})
        rows = [{"observation": observation, **info}]
        actions = self.actions(ours)
        other.reset(seed=4, options={"variation": ["all"]})
        for action, fleeting in zip(actions, self.actions(other), strict=True):
            observation, reward, terminated, truncated, info = ours.step(action)
            flags = {"reward": reward, "terminated": terminated, "truncated": truncated}
            other.step(fleeting)
            other.render()
            rows.append({"observation": observation, **flags, **info, "pixels": ours.render()})
        assert_same(shown(rows), shown(alone))

    def test_global_random_states_are_neither_read_nor_changed(self) -> None:
        rows = []
        for seed in (1, 2):
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
            rows.append(self.record(self.make(), 3, {"variation": ["all"]}))
            assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002
        assert_same(*rows)

    def test_a_copy_goes_on_alone(self) -> None:
        env = self.make()
        env.reset(seed=2)
        twins = [copy.deepcopy(env), pickle.loads(pickle.dumps(env))]
        rows = self.record(env, seed=None)
        for twin in twins:
            assert_same(rows, self.record(twin, seed=None))

    # ------------------------------------------------------------------ pictures
    def test_native_picture_size(self) -> None:
        env = self.make(size=None)
        env.reset(seed=0)
        assert env.render().shape == (*self.native_size, 3)

    @pytest.mark.parametrize("size", [(64, 64), (48, 96), (7, 5), (256, 256)])
    def test_pictures_have_the_size_asked_for(self, size: tuple[int, int]) -> None:
        env = self.make(size)
        _, info = env.reset(seed=0)
        pictures = [env.render(), *([info["goal"]] if "goal" in info else [])]
        assert [(p.shape, p.dtype) for p in pictures] == [((*size, 3), np.uint8)] * len(pictures)

    def test_picture_size_may_change_within_an_episode(self) -> None:
        env, other = self.make((24, 24)), self.make((64, 64))
        for e in (env, other):
            e.reset(seed=0)
        env.render_shape = (64, 64)
        assert_same([env.step(self.actions(env, 1)[0])[4]], [other.step(self.actions(other, 1)[0])[4]])
        np.testing.assert_array_equal(env.render(), other.render())

    def test_rendering_changes_nothing(self) -> None:
        seen = self.record(self.make(), frames=True)
        for row in seen:
            row.pop("pixels", None)
        assert_same(seen, self.record(self.make(), frames=False))

    def test_every_picture_is_a_new_array(self) -> None:
        env = self.make()
        env.reset(seed=0)
        first = env.render()
        kept = first.copy()
        first[:] = 0
        np.testing.assert_array_equal(env.render(), kept)

    # ------------------------------------------------------------------ goals
    def test_goal_is_one_picture_drawn_once_per_episode(self) -> None:
        env = self.make()
        if "goal" not in env.reset(seed=0)[1]:
            return
        drawn = self._count_goals(env)
        rows = self.record(env)
        assert len(drawn) == 1
        assert_same([{"goal": row["goal"]} for row in rows], [{"goal": rows[0]["goal"]}] * len(rows))

    def test_a_goal_state_comes_with_its_picture(self) -> None:
        info = self.make().reset(seed=0)[1]
        assert ("goal" in info) == ("goal_state" in info)

    def _count_goals(self, env: Any) -> list[None]:
        """A list that grows by one whenever the env draws a goal."""
        drawn: list[None] = []
        draw_goal = env._draw_goal

        def counted() -> Any:
            drawn.append(None)
            return draw_goal()

        env._draw_goal = counted
        return drawn

    def test_sampled_goals_follow_the_seed_and_change_nothing(self) -> None:
        env, other = self.make(), self.make()
        infos = [e.reset(seed=0)[1] for e in (env, other)]
        if "goal_state" not in infos[0]:
            return
        goals = [env.sample_goal(seed) for seed in (5, 5, 6)]
        np.testing.assert_array_equal(goals[0], goals[1])
        assert not np.array_equal(goals[0], goals[2])
        for action in self.actions(env, 3):
            assert_same([env.step(action)[4]], [other.step(action)[4]])
        info = env.reset(seed=0, options={"goal_state": goals[0], "target_state": goals[0]})[1]
        turns = (info["goal_state"] - goals[0]) / (2 * np.pi)
        np.testing.assert_allclose(turns, np.rint(turns), atol=1e-9)  # an angle may be wrapped

    # ------------------------------------------------------------------ factors
    def test_no_variation_means_defaults_whatever_came_before(self) -> None:
        env = self.make()
        env.reset(seed=0, options={"variation": ["all"]})
        env.reset(seed=1, options={"variation": []})
        space = env.variation_space
        assert_same([flatten_dict(space.value)], [flatten_dict(space.init_value)])

    def test_varying_any_single_factor_is_legal(self) -> None:
        env = self.make()
        for name in env.variation_space.names():
            for seed in SEEDS:
                env.reset(seed=seed, options={"variation": [name]})
                assert env.variation_space.check(debug=True), (name, seed)

    def test_varying_everything_is_legal(self) -> None:
        env = self.make()
        for seed in SEEDS:
            self.record(env, seed, {"variation": ["all"]}, frames=False)
            assert env.variation_space.check(debug=True), seed

    def test_every_factor_has_an_effect_unless_declared_inert(self) -> None:
        env = self.make()
        names = env.variation_space.names()
        without_effect = {name for name in names if not self._has_effect(env, name)}
        assert without_effect == self.inert.keys()

    def _has_effect(self, env: Any, name: str) -> bool:
        """Whether another value of this factor alone, everything else held, changes what is seen or what happens."""
        held = {key: value for key, value in self.revealing.items() if key != name}
        if self._shows(env, name, held, {}) is False:
            return False
        goal = self.record(env, 0, {"variation": [], "variation_values": held})[0].get("goal_state")
        if goal is None or name.partition(".")[0] in self.goal_groups:
            return True
        return self._shows(env, name, held, {"goal_state": goal, "target_state": goal})

    def _shows(self, env: Any, name: str, held: Mapping[str, Any], goal: Mapping[str, Any]) -> bool:
        plain = shown(self.record(env, 0, {"variation": [], "variation_values": held, **goal}))
        for seed in SEEDS:
            env.reset(seed=seed, options={"variation": [name], "variation_values": held})
            values = {**held, name: flatten_dict(env.variation_space.value)[name]}
            try:
                rows = self.record(env, 0, {"variation": [], "variation_values": values, **goal})
            except ContractError:  # the value does not fit the goal, or what is held
                continue
            if not is_same(plain, shown(rows)):
                return True
        return False

    @pytest.mark.parametrize("form", ["variation", "variation_values"])
    def test_unknown_factors_are_refused_with_a_suggestion(self, form: str) -> None:
        env = self.make()
        name = env.variation_space.names()[-1]
        typo = name[:-1]
        with pytest.raises(ContractError, match=name):
            env.reset(seed=0, options={form: [typo] if form == "variation" else {typo: 0}})

    def test_explicit_values_win_over_samples(self) -> None:
        env = self.make()
        env.reset(seed=4, options={"variation": ["all"]})
        values = flatten_dict(env.variation_space.value)
        env.reset(seed=9, options={"variation": ["all"], "variation_values": values})
        assert_same([flatten_dict(env.variation_space.value)], [values])


class RestorableContract(EnvContract):
    """An env that a dataset row can put back; adds to EnvContract."""

    def test_a_restored_row_goes_on_as_it_was_recorded(self) -> None:
        start, goal = 6, 15
        env = self.make()
        rows = self.record(env, seed=8, options={"variation": ["all"]})
        factors = {f"variation.{name}": value for name, value in flatten_dict(env.variation_space.value).items()}
        init_row = {**columns(rows[start]), **factors}
        goal_row = goal_columns({**rows[goal], **factors})

        other = self.make()
        _, info = other.reset(seed=99, options=other.reset_options_from_dataset(init_row, goal_row))
        np.testing.assert_array_equal(info["state"], rows[start]["state"])
        np.testing.assert_array_equal(info["goal_state"], rows[goal]["state"])
        np.testing.assert_array_equal(other.render(), rows[start]["pixels"])
        for action, row in zip(self.actions(other)[start:], rows[start + 1 :], strict=True):
            _, _, _, _, info = other.step(action)
            np.testing.assert_array_equal(info["state"], row["state"])
            np.testing.assert_array_equal(other.render(), row["pixels"])

    def test_recorded_factors_are_restored_exactly(self) -> None:
        env = self.make()
        rows = self.record(env, seed=8, options={"variation": ["all"]})
        values = flatten_dict(env.variation_space.value)
        # As formats store them that know only arrays.
        factors = {f"variation.{name}": np.atleast_1d(value) for name, value in values.items()}
        options = env.reset_options_from_dataset({**columns(rows[0]), **factors}, goal_columns(rows[0]))
        options.pop("target_state", None)  # a goal elsewhere moves the target
        env.reset(seed=99, options=options)
        assert_same([flatten_dict(env.variation_space.value)], [values])

    def test_a_missing_column_is_named(self) -> None:
        env = self.make()
        row = columns(self.record(env)[0])
        with pytest.raises(KeyError, match="state"):
            env.reset_options_from_dataset({}, goal_columns(row))
        with pytest.raises(KeyError, match="goal_state"):
            env.reset_options_from_dataset(row, {})


def columns(row: dict) -> dict[str, Any]:
    """A row as World hands it to an env: numbers only, no goals."""
    numbers = {key: np.asarray(value) for key, value in row.items() if not isinstance(value, str)}
    return {key: value for key, value in numbers.items() if not key.startswith("goal")}


def goal_columns(row: dict) -> dict[str, Any]:
    return {"goal" if key == "pixels" else f"goal_{key}": value for key, value in row.items()}


def shown(rows: list[dict]) -> list[dict]:
    """What of each row an agent can see or feel."""
    return [{key: value for key, value in lifted(row).items() if key in SHOWN} for row in rows]


def lifted(row: dict) -> dict:
    """A row whose observation, if it is a mapping, is replaced by its entries, as World does it."""
    observation = row.get("observation")
    if not isinstance(observation, Mapping):
        return row
    assert not observation.keys() & row.keys()
    return {key: value for key, value in row.items() if key != "observation"} | dict(observation)


def is_same(rows: list[dict], others: list[dict]) -> bool:
    try:
        assert_same(rows, others)
    except AssertionError:
        return False
    return True


def assert_same(rows: list[dict], others: list[dict]) -> None:
    """Equal to the last bit, dtypes included."""
    assert len(rows) == len(others)
    for row, other in zip(rows, others, strict=True):
        assert row.keys() == other.keys()
        for key, value in row.items():
            np.testing.assert_array_equal(value, other[key], err_msg=key, strict=isinstance(value, np.ndarray))
