"""Fetch: the contract of all envs, with the quickest task always and the others when slow tests run."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from envs.contract import EnvContract
from gymnasium.utils.env_checker import check_env

pytest.importorskip("gymnasium_robotics")


class TestReach(EnvContract):
    id = "swm/FetchReach-v3"
    goal_groups = ("goal", "target", "task", "agent")

    def test_gymnasium_finds_no_fault(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", message=".*A Box observation space m.*infinity")
            check_env(self.make(), skip_render_check=False)


@pytest.mark.slow
class TestPush(TestReach):
    id = "swm/FetchPush-v3"


@pytest.mark.slow
class TestSlide(TestPush):
    id = "swm/FetchSlide-v3"


@pytest.mark.slow
class TestPickAndPlace(TestPush):
    id = "swm/FetchPickAndPlace-v3"


@pytest.mark.slow
class TestReachDense(TestReach):
    id = "swm/FetchReachDense-v3"


class DictContract(TestReach):
    """Observations are the package's mapping; rows hold its entries."""

    __test__ = False

    def record(self, *args: Any, **kwargs: Any) -> list[dict]:
        return [{**row, **row["observation"]} for row in super().record(*args, **kwargs)]

    def test_observations_are_numpy_arrays_of_the_declared_space(self) -> None:
        env = self.make()
        assert env.observation_space.contains(env.reset(seed=0, options={"variation": ["all"]})[0])
        for action in self.actions(env):
            assert env.observation_space.contains(env.step(action)[0])

    def test_seeds_differ(self) -> None:
        env = self.make()
        goals = [env.reset(seed=seed)[0]["desired_goal"].tobytes() for seed in range(4)]
        assert len(set(goals)) == len(goals)

    def test_envs_side_by_side_do_not_disturb_each_other(self) -> None:
        alone = self.record(self.make(), 3, {"variation": ["all"]})
        ours, other = self.make(), self.make()
        observation, info = ours.reset(seed=3, options={"variation": ["all"]})
        actions = self.actions(ours)
        other.reset(seed=4, options={"variation": ["all"]})
        for action, fleeting, row in zip(actions, self.actions(other), alone[1:], strict=True):
            observation, _, _, _, info = ours.step(action)
            other.step(fleeting)
            other.render()
            np.testing.assert_array_equal(observation["observation"], row["observation"])
            np.testing.assert_array_equal(info["qpos"], row["qpos"])
            np.testing.assert_array_equal(ours.render(), row["pixels"])


@pytest.mark.slow
class TestReachDict(DictContract):
    __test__ = True
    id = "swm/FetchReachDict-v3"


class Variant:
    """Differs from a task above in its reward or in how observations are packed: what neither touches is left out."""

    test_native_picture_size = test_pictures_have_the_size_asked_for = None
    test_picture_size_may_change_within_an_episode = test_rendering_changes_nothing = None
    test_every_picture_is_a_new_array = test_goal_is_one_picture_drawn_once_per_episode = None
    test_a_goal_state_comes_with_its_picture = test_sampled_goals_follow_the_seed_and_change_nothing = None
    test_no_variation_means_defaults_whatever_came_before = test_varying_any_single_factor_is_legal = None
    test_every_factor_has_an_effect_unless_declared_inert = None
    test_unknown_factors_are_refused_with_a_suggestion = test_explicit_values_win_over_samples = None
    test_global_random_states_are_neither_read_nor_changed = None


@pytest.mark.slow
class TestPushDense(Variant, TestPush):
    id = "swm/FetchPushDense-v3"


@pytest.mark.slow
class TestPushDict(Variant, DictContract):
    __test__ = True
    id = "swm/FetchPushDict-v3"


@pytest.mark.slow
class TestSlideDense(Variant, TestSlide):
    id = "swm/FetchSlideDense-v3"


@pytest.mark.slow
class TestSlideDict(Variant, DictContract):
    __test__ = True
    id = "swm/FetchSlideDict-v3"


@pytest.mark.slow
class TestPickAndPlaceDense(Variant, TestPickAndPlace):
    id = "swm/FetchPickAndPlaceDense-v3"


@pytest.mark.slow
class TestPickAndPlaceDict(Variant, DictContract):
    __test__ = True
    id = "swm/FetchPickAndPlaceDict-v3"
