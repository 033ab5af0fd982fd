"""World: construction, the step loop, and everything a user can get wrong."""

import gymnasium as gym
import numpy as np
import pytest

from stable_worldmodel.errors import ContractError, PolicyNotSetError
from stable_worldmodel.policy import BasePolicy, RandomPolicy
from stable_worldmodel.world import World


@pytest.fixture
def world():
    with World("toy/Walk-v0", 3, (8, 8)) as built:
        yield built


class Recorder(BasePolicy):
    """Acts with zeros and remembers what it was told."""

    type = "recorder"

    def __init__(self):
        super().__init__()
        self.flushes, self.resets = [], []

    def reset(self, env_indices, episode_seeds):
        self.resets.append((env_indices.tolist(), None if episode_seeds is None else episode_seeds.tolist()))

    def get_action(self, info, **kwargs):
        self.flushes.append(info["_needs_flush"].tolist() if "_needs_flush" in info else None)
        info.clear()  # a policy owns its dict
        return np.zeros(self.env.action_space.shape, np.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("toy/Walk-v0", 0, (8, 8)), "num_envs=0"),
        (("toy/Walk-v0", -1, (8, 8)), "num_envs=-1"),
        (("toy/Walk-v0", True, (8, 8)), "num_envs=True"),
        (("toy/Walk-v0", 2), "image_shape is missing"),
        (("toy/Walk-v0", 2, (8,)), "image shape"),
    ],
)
def test_bad_construction_is_refused(arguments, message):
    with pytest.raises(ContractError, match=message):
        World(*arguments)


@pytest.mark.parametrize("name", ["swm/TwoRom-v1", "TwoRom", "tworoom-v1", "swm/TwoRoom-v9"])
def test_unknown_envs_list_close_ids(name):
    with pytest.raises(gym.error.Error, match="swm/TwoRoom-v1"):
        World(name, 1, (8, 8))


def test_a_bare_id_finds_the_prefixed_one():
    with World("TwoRoom-v1", 1, (16, 16)) as world:
        assert world.env_name == "swm/TwoRoom-v1"


def test_reset_and_step_fill_the_public_attributes(world):
    assert world.rewards is None
    assert world.infos == {}
    world.set_policy(RandomPolicy(seed=0))
    world.reset(seed=1)
    assert world.rewards.tolist() == [0, 0, 0]
    assert world.terminateds.dtype == world.truncateds.dtype == bool
    world.step()
    assert world.infos["pixels"].shape == (3, 1, 8, 8, 3)
    assert world.states.shape == (3, 1)
    assert world.rewards.tolist() == [1, 1, 1]


def test_a_step_before_any_reset_uses_the_worlds_own_seed(world):
    world.set_policy(RandomPolicy(seed=0))
    world.step()
    assert world.envs.seeds.tolist() == [world.seed, world.seed + 1, world.seed + 2]


def test_ended_envs_stay_frozen_until_a_reset(world):
    world.set_policy(Recorder())
    world.reset(seed=0)
    ended = np.zeros(3, bool)
    while not ended.all():
        world.step()
        ended |= world.terminateds
    steps = world.infos["step_idx"].copy()
    world.step()
    assert (world.infos["step_idx"] == steps).all()
    assert world.rewards.tolist() == [0, 0, 0]


def test_the_policy_hears_of_every_start_once(world):
    policy = Recorder()
    world.set_policy(policy)
    world.reset(seed=4)
    world.step()
    world.step()
    assert policy.resets == [([0, 1, 2], [4, 5, 6])]
    assert policy.flushes == [[True] * 3, None]
    world.reset()
    assert policy.resets[-1] == ([0, 1, 2], None)


def test_a_policy_cannot_corrupt_the_infos(world):
    world.set_policy(Recorder())
    world.reset(seed=0)
    world.step()
    assert "pixels" in world.infos


def test_actions_are_checked(world):
    class Fixed(BasePolicy):
        def get_action(self, info, **kwargs):
            return self.value

    world.reset(seed=0)
    with pytest.raises(PolicyNotSetError):
        world.step()
    world.set_policy(Fixed(value=np.zeros((2, 1))))
    with pytest.raises(ContractError, match=r"\(2, 1\): expected \(3, 1\)"):
        world.step()
    world.set_policy(Fixed(value=np.array([[0.0], [np.nan], [0.0]])))
    with pytest.raises(ContractError, match=r"live envs \[1\]"):
        world.step()
    with pytest.raises(TypeError, match="get_action"):
        world.set_policy(object())


def test_a_missing_goal_is_mentioned_once(caplog):
    with World("toy/Coin-v0", 2, add_pixels=False) as world:
        world.reset(seed=0)
        world.reset(seed=0)
    assert [r.message for r in caplog.records if "goal" in r.message] == [
        "toy/Coin-v0 gives no 'goal' in info; pass goal_conditioned=False if it has none"
    ]


def test_wrappers_are_applied_inside_and_outside():
    seen = []

    def note(label):
        return lambda env: seen.append((label, type(env).__name__)) or env

    World("toy/Walk-v0", 1, (8, 8), pre_wrappers=[note("pre")], extra_wrappers=[note("extra")]).close()
    assert seen[1] == ("extra", "MegaWrapper")
    assert seen[0][0] == "pre"


@pytest.mark.parametrize("seed", [-1, True, 1.5, "3"])
def test_bad_seeds_are_refused_before_anything_runs(world, seed):
    world.set_policy(RandomPolicy(seed=0))
    for call in (world.evaluate, lambda **k: world.collect("x.h5", 2, **k), world.reset):
        with pytest.raises(ContractError, match="seed"):
            call(seed=seed)


def test_bad_evaluations_are_refused_before_anything_runs(world):
    with pytest.raises(PolicyNotSetError):
        world.evaluate(episodes=2)
    world.set_policy(RandomPolicy(seed=0))
    for episodes in (0, -3, 1.5, True):
        with pytest.raises(ContractError, match="episodes"):
            world.evaluate(episodes=episodes)
    with pytest.raises(ContractError, match="need a dataset"):
        world.evaluate(goal_offset=3)
    with pytest.raises(ContractError, match="are required"):
        world.evaluate(dataset=object(), goal_offset=3)
    with World("toy/Walk-v0", 1, add_pixels=False) as blind:
        blind.set_policy(RandomPolicy(seed=0))
        with pytest.raises(ContractError, match="add_pixels"):
            blind.evaluate(video="somewhere")


def test_results_know_their_interval_and_save_what_repeats_them(world, tmp_path):
    import json

    world.set_policy(RandomPolicy(seed=0))
    results = world.evaluate(episodes=5, seed=3)
    low, high = results.interval()
    assert low < results["success_rate"] <= high
    saved = json.loads(results.save(tmp_path / "r.json").read_text())
    assert saved["protocol"]["env"]["id"] == "toy/Walk-v0"
    assert saved["protocol"]["seed"] == 3
    assert saved["protocol"]["policy"]["seed"] == 0
    assert saved["versions"]["numpy"] == np.__version__
    assert "git_revision" in saved
