"""The scripted expert of TwoRoom, and what all scripted experts share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stable_worldmodel.envs.two_room import ExpertPolicy, TwoRoomEnv
from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.world import World


class Episodes:
    """Recorded episodes by seed: a writer that keeps what it is given."""

    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []

    def write_episode(self, episode: Any) -> None:
        self.written.append({key: np.array(value) for key, value in episode.items()})

    def write_episodes(self, episodes: Any) -> None:
        for episode in episodes:
            self.write_episode(episode)


def collect(num_envs: int, policy: ExpertPolicy, episodes: int = 6, **kwargs: Any) -> list[np.ndarray]:
    writer = Episodes()
    with World("swm/TwoRoom-v1", num_envs, image_shape=(8, 8), max_episode_steps=30, verbose=0, **kwargs) as world:
        world.set_policy(policy)
        world.collect(writer=writer, episodes=episodes, seed=10, progress=False)
    return [episode["action"] for episode in writer.written]


def walk(env: TwoRoomEnv, seed: int, options: dict | None = None, max_steps: int = 400) -> bool:
    """Whether the noise-free expert reaches the target."""
    policy = ExpertPolicy()
    policy.set_env(env)
    _, info = env.reset(seed=seed, options=options)
    for _ in range(max_steps):
        _, _, terminated, _, info = env.step(policy.get_action(info))
        if terminated:
            return True
    return False


def make(**kwargs: Any) -> TwoRoomEnv:
    env = TwoRoomEnv(**kwargs)
    env.render_shape = (8, 8)
    return env


def first_action(policy: ExpertPolicy, state, target, **values: Any) -> np.ndarray:
    env = make()
    given = {name.replace("__", "."): value for name, value in values.items()}
    options = {"variation": [], "variation_values": given, "state": state, "target_state": target}
    _, info = env.reset(seed=0, options=options)
    policy.set_env(env)
    return policy.get_action(info)


# ---------------------------------------------------------------------- where it goes
def direction(start, end) -> np.ndarray:
    way = np.subtract(end, start)
    return way / np.linalg.norm(way)


@pytest.mark.parametrize(
    ("state", "target", "values", "waypoint"),
    [
        ((60, 112), (30, 180), {}, (30, 180)),  # same room: straight
        ((60, 112), (180, 112), {}, (112, 49)),  # through the door
        ((105, 45), (180, 112), {}, (180, 112)),  # door reached
        ((112, 60), (112, 180), {"wall__axis": 0}, (49, 112)),  # horizontal wall
        ((60, 150), (180, 150), {"door__number": 2, "door__position": [49, 190, 150]}, (112, 190)),  # the nearest one
        (
            (60, 150),
            (180, 150),
            {"door__number": 2, "door__position": [49, 190, 0], "door__size": [14, 7, 1]},
            (112, 49),
        ),
        ((60, 49), (180, 150), {"door__position": [212, 0, 0], "door__size": [10, 1, 1]}, (112, 203)),  # half hidden
        ((60, 49), (180, 150), {"door__position": [223, 0, 0], "door__size": [10, 1, 1]}, (112, 150)),  # all hidden
    ],
)
def test_waypoint(state, target, values, waypoint) -> None:
    action = first_action(ExpertPolicy(), state, target, **values)
    np.testing.assert_allclose(action, direction(state, waypoint), atol=1e-6)


def test_no_action_at_the_target() -> None:
    assert first_action(ExpertPolicy(), (50, 50), (50, 50)).tolist() == [0, 0]


def test_expert_reaches_every_target_of_the_default_env() -> None:
    env = make()
    assert all(walk(env, seed) for seed in range(60))


@pytest.mark.parametrize("variation", [None, ["all"]])
def test_expert_solves_every_far_target_with_swept_collisions(variation) -> None:
    env = make(target_rule="other_room", collision="swept")
    options = None if variation is None else {"variation": variation}
    assert all(walk(env, seed, options) for seed in range(60))


def test_swept_targets_inside_the_wall_are_reached_from_the_front() -> None:
    env = make(collision="swept")
    for target in ((104, 140), (120, 160)):
        for start in ((40, 100), (180, 100)):
            assert walk(env, 0, {"variation": [], "state": start, "target_state": target})


# ---------------------------------------------------------------------- noise
def test_actions_do_not_depend_on_the_number_of_envs() -> None:
    one, four = (collect(n, ExpertPolicy(action_noise=2.0, action_repeat_prob=0.3, seed=5)) for n in (1, 4))
    assert len(one) == len(four) == 6
    for ours, theirs in zip(one, four, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_policy_seed_changes_the_noise() -> None:
    first, second = (collect(1, ExpertPolicy(action_noise=2.0, seed=seed), episodes=1)[0] for seed in (1, 2))
    assert not np.array_equal(first, second, equal_nan=True)


def test_actions_are_clipped_float32() -> None:
    actions = np.concatenate(collect(2, ExpertPolicy(action_noise=2.0)))
    assert actions.dtype == np.float32
    assert np.nanmax(np.abs(actions)) == 1.0


def test_certain_repeat_holds_the_first_action_of_each_episode() -> None:
    episodes = collect(2, ExpertPolicy(action_noise=1.0, action_repeat_prob=1.0, seed=0))
    firsts = [actions[0] for actions in episodes]
    for actions, first in zip(episodes, firsts, strict=True):
        np.testing.assert_array_equal(actions[:-1], np.broadcast_to(first, actions[:-1].shape))
    assert len({first.tobytes() for first in firsts}) == len(firsts)


def test_unseeded_rollouts_of_a_seeded_policy_repeat() -> None:
    def run() -> list[float]:
        env, policy = make(), ExpertPolicy(action_noise=1.0, seed=3)
        policy.set_env(env)
        _, info = env.reset(seed=0)
        actions = []
        for _ in range(5):
            actions.append(policy.get_action(info))
            info = env.step(actions[-1])[4]
        return np.concatenate(actions).tolist()

    assert run() == run()


# ---------------------------------------------------------------------- what it is attached to
class Bench:
    """Two envs that only answer `call`, as a pool of worker processes does."""

    num_envs = 2

    def __init__(self) -> None:
        self.members = [make(), make()]
        self.calls = 0

    def call(self, name: str) -> list[Any]:
        self.calls += 1
        return [getattr(env, name)() for env in self.members]

    def reset(self, axes: tuple[int, int]) -> None:
        for env, axis in zip(self.members, axes, strict=True):
            env.reset(seed=0, options={"variation": [], "variation_values": {"wall.axis": axis}})

    def info(self, step: int | None = None) -> dict[str, Any]:
        infos = [env._info() for env in self.members]
        stacked = {key: np.stack([info[key] for info in infos])[:, None] for key in ("state", "goal_state")}
        return stacked if step is None else {**stacked, "step_idx": np.full((2, 1), step)}


def test_layouts_are_read_once_per_episode() -> None:
    bench, policy = Bench(), ExpertPolicy()
    policy.set_env(bench)
    for axes in ((1, 0), (0, 1)):
        bench.reset(axes)
        for step in range(3):
            actions = policy.get_action(bench.info(step))
        assert (actions[0] == actions[1][::-1]).all()
        assert not np.array_equal(actions[0], actions[1])
    assert bench.calls == 2


def test_announced_episodes_win_over_step_idx() -> None:
    bench, policy = Bench(), ExpertPolicy()
    policy.set_env(bench)
    bench.reset((1, 1))
    policy.reset([0, 1], [4, 5])
    for _ in range(3):
        policy.get_action(bench.info(step=0))
    assert bench.calls == 1


def test_without_announcement_or_step_idx_nothing_is_stale() -> None:
    bench, policy = Bench(), ExpertPolicy()
    policy.set_env(bench)
    for axes in ((1, 1), (0, 0)):
        bench.reset(axes)
        actions = policy.get_action(bench.info())
        np.testing.assert_allclose(actions[0], direction(*WAYS[axes[0]]), atol=1e-6)


WAYS = {1: ((60, 112), (112, 49)), 0: ((112, 60), (49, 112))}


def test_values_without_time_axis_are_accepted() -> None:
    bench, policy = Bench(), ExpertPolicy()
    policy.set_env(bench)
    bench.reset((1, 0))
    stacked = bench.info()
    flat = {key: value[:, 0] for key, value in stacked.items()}
    np.testing.assert_array_equal(policy.get_action(stacked), policy.get_action(flat))


def test_history_counts_by_its_newest_entry() -> None:
    bench, policy = Bench(), ExpertPolicy()
    policy.set_env(bench)
    bench.reset((1, 1))
    now = bench.info()
    history = {key: np.concatenate([value + 30, value], axis=1) for key, value in now.items()}
    np.testing.assert_array_equal(policy.get_action(history), policy.get_action(now))


# ---------------------------------------------------------------------- errors
def test_expert_needs_an_env() -> None:
    with pytest.raises(RuntimeError, match="set_env"):
        ExpertPolicy().get_action({})


def test_missing_info_key_is_named() -> None:
    env, policy = make(), ExpertPolicy()
    policy.set_env(env)
    _, info = env.reset(seed=0)
    info.pop("goal_state")
    with pytest.raises(MissingKeyError, match="goal_state"):
        policy.get_action(info)


def test_wrong_number_of_envs_is_refused() -> None:
    env, policy = make(), ExpertPolicy()
    policy.set_env(env)
    env.reset(seed=0)
    with pytest.raises(ContractError, match="one entry per env"):
        policy.get_action({"state": np.zeros((3, 2)), "goal_state": np.zeros((3, 2))})


@pytest.mark.parametrize("kwargs", [{"action_noise": -1.0}, {"action_repeat_prob": 1.5}])
def test_bad_parameters_are_refused(kwargs) -> None:
    with pytest.raises(ContractError):
        ExpertPolicy(**kwargs)
