"""A model that acts directly, driven through a pool and through World."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from pool_stub import PoolStub, box_pool
from torch import nn

from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.policy import FeedForwardPolicy, RandomPolicy
from stable_worldmodel.protocols import Policy
from stable_worldmodel.world import World


class Actor(nn.Module):
    """Tanh of a layer over the newest state and goal pixel; remembers what it was given."""

    def __init__(self, size=2, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(2, 64, dtype=dtype), nn.Dropout(0.5), nn.Linear(64, size, dtype=dtype))
        self.seen = []

    def get_action(self, info, horizon=1, prefix_actions=None):
        self.seen.append(info)
        goal = info["goal_pixels"][:, -1].flatten(1)[:, :1].to(info["state"].dtype) / 255
        return torch.tanh(self.net(torch.cat([info["state"][:, -1], goal], dim=1)))


class Fixed:
    """Returns whatever it was made with, for the envs asked about."""

    def __init__(self, output):
        self.output = output

    def get_action(self, info):
        return self.output[: len(info["goal"])] if hasattr(self.output, "shape") else self.output


class Affine:
    def transform(self, x):
        return (x - 1) / 2

    def inverse_transform(self, x):
        assert x.ndim == 2
        return 2 * x + 1


def attached(model, pool=None, **kwargs):
    policy = FeedForwardPolicy(model, **kwargs)
    policy.set_env(pool or box_pool(3))
    return policy


def info_of(num_envs=3, **extra):
    rng = np.random.default_rng(0)
    return {
        "state": rng.normal(size=(num_envs, 1, 1)),
        "goal": rng.integers(0, 256, (num_envs, 1, 8, 6, 3), np.uint8),
        "names": [f"env {i}" for i in range(num_envs)],
        **extra,
    }


def test_it_is_a_policy_that_acts_in_the_action_space():
    policy = attached(Actor(), level=3)
    actions = policy.get_action(info_of())
    assert isinstance(policy, Policy)
    assert (policy.type, policy.level) == ("feed_forward", 3)
    assert actions in policy.env.action_space
    assert actions.dtype == np.float32


def test_the_model_sees_prepared_inputs_and_the_goal_under_both_names():
    policy = attached(Actor(), transform={"goal": lambda image: image.float() / 2}, batch_size=3)
    info = info_of(_active=np.array([True, True, True]), _needs_flush=np.ones(3, bool))
    policy.get_action(info)
    (seen,) = policy.model.seen
    assert seen["goal"].shape == (3, 1, 3, 8, 6)
    assert torch.equal(seen["goal_pixels"], seen["goal"])
    np.testing.assert_array_equal(seen["goal"].numpy(), np.moveaxis(info["goal"], -1, -3) / np.float32(2))
    assert seen["names"] == info["names"]
    assert not any(key.startswith("_") for key in seen)
    assert "goal_pixels" not in info


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_floats_arrive_in_the_dtype_of_the_model_and_images_as_they_are(dtype):
    policy = attached(Actor(dtype=dtype))
    actions = policy.get_action(info_of())
    assert policy.model.seen[0]["state"].dtype == dtype
    assert policy.model.seen[0]["goal"].dtype == torch.uint8
    assert actions.dtype == np.float32
    assert np.isfinite(actions).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_inputs_follow_the_model_to_its_device():
    policy = attached(Actor().cuda())
    on_device = policy.get_action(info_of())
    assert len(policy.model.seen) == 1
    assert policy.model.seen[0]["state"].is_cuda
    np.testing.assert_allclose(on_device, attached(Actor()).get_action(info_of()), atol=1e-5)


def test_the_model_is_in_eval_mode_and_records_no_gradients():
    policy = attached(Actor())
    assert not policy.model.training
    np.testing.assert_array_equal(policy.get_action(info_of()), policy.get_action(info_of()))  # no dropout
    assert policy.model.seen[0]["state"].is_inference()


class TestEndedEnvs:
    @pytest.mark.parametrize(
        "ended",
        [
            {"_active": np.array([False, True, False])},
            {"terminated": np.array([[True], [False], [False]]), "truncated": np.array([[False], [False], [True]])},
        ],
    )
    def test_get_nan_and_are_not_computed(self, ended):
        policy = attached(Actor())
        actions = policy.get_action(info_of(**ended))
        assert np.isnan(actions).all(axis=1).tolist() == [True, False, True]
        assert [seen["names"] for seen in policy.model.seen] == [["env 1"]]

    def test_cost_nothing_when_all_have_ended(self):
        policy = attached(Actor())
        assert np.isnan(policy.get_action(info_of(_active=np.zeros(3, bool)))).all()
        assert policy.model.seen == []

    @pytest.mark.parametrize("space", [gym.spaces.Discrete(5), gym.spaces.MultiDiscrete([5, 5])])
    def test_get_zero_in_integer_spaces(self, space):
        pool = PoolStub(space, 3)
        policy = attached(Fixed(torch.full((3, *space.shape), 4)), pool)
        actions = policy.get_action(info_of(_active=np.array([True, False, True])))
        assert actions in pool.action_space
        assert actions.dtype == pool.action_space.dtype
        assert [row.tolist() for row in actions.reshape(3, -1)[:, :1]] == [[4], [0], [4]]


class TestActions:
    def test_are_scaled_back_last_and_moved_into_the_bounds(self):
        output = torch.tensor([[0.5, -0.5], [3.0, -3.0], [0.0, 1.0]])
        policy = attached(Fixed(output), box_pool(3, -4, 4), process={"action": Affine()}, batch_size=3)
        np.testing.assert_array_equal(policy.get_action(info_of()), [[2, 0], [4, -4], [1, 3]])

    def test_may_be_flattened_or_arrays(self):
        pool = PoolStub(gym.spaces.Box(-9, 9, (2, 3), np.float64), 3)
        expected = np.arange(18.0).reshape(3, 2, 3) / 2
        for output in (torch.from_numpy(expected), expected, expected.reshape(3, 6)):
            np.testing.assert_array_equal(attached(Fixed(output), pool, batch_size=3).get_action(info_of()), expected)

    @pytest.mark.parametrize(
        "output",
        [torch.zeros(3, 3), torch.zeros(3, 2, 1), torch.zeros(3, 0), torch.zeros(3), [[0.0, 0.0]] * 3, None],
    )
    def test_of_another_shape_or_type_are_refused(self, output):
        with pytest.raises(ContractError, match=r"Fixed.get_action returned .* expected actions \(3, 2\)"):
            attached(Fixed(output), batch_size=3).get_action(info_of())

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_that_are_not_finite_are_refused_naming_the_env(self, bad):
        output = torch.zeros(3, 2)
        output[1, 0] = bad
        policy = attached(Fixed(output), batch_size=3)
        with pytest.raises(ContractError, match=r"envs \[2\]"):  # the second of the live ones
            policy.get_action(info_of(_active=np.array([True, False, True])))

    def test_of_integer_spaces_are_integers(self):
        pool = PoolStub(gym.spaces.Discrete(3), 3)
        with pytest.raises(ContractError, match="expected integers"):
            attached(Fixed(torch.zeros(3)), pool, batch_size=3).get_action(info_of())


class Chunks(nn.Module):
    """Three actions at once for every env, that of its k-th call is 100 * state + 10 * call + k; counts its calls."""

    def __init__(self, form):
        super().__init__()
        self.form, self.asked = form, []

    def get_action(self, info):
        state = info["state"][:, -1]  # (n, 1)
        self.asked.append(state[:, 0].tolist())
        actions = 100 * state[:, None] + 10 * (len(self.asked) - 1) + torch.arange(3.0)[:, None]  # (n, 3, 1)
        return actions.expand(-1, -1, 2).reshape(len(state), *self.form)


class TestChunks:
    """Models that give several actions are asked again when all are executed."""

    def states(self, **extra):
        return {**info_of(), "state": np.arange(3, dtype=np.float32).reshape(3, 1, 1), **extra}

    @pytest.mark.parametrize("form", [(3, 2), (6,)])
    def test_are_executed_in_order(self, form):
        policy = attached(Chunks(form), box_pool(3, -1000, 1000), batch_size=3)
        for step in range(7):
            expected = 100 * np.arange(3) + 10 * (step // 3) + step % 3
            np.testing.assert_array_equal(policy.get_action(self.states()), np.stack([expected] * 2, axis=1))
        assert policy.model.asked == [[0, 1, 2]] * 3

    @pytest.mark.parametrize("how", ["reset", "flush"])
    def test_of_an_env_that_begins_an_episode_are_dropped(self, how):
        policy = attached(Chunks((3, 2)), box_pool(3, -1000, 1000), batch_size=3)
        policy.get_action(self.states())
        flush = {"_needs_flush": np.array([False, True, False])} if how == "flush" else {}
        if how == "reset":
            policy.reset([1], [7])
        assert policy.get_action(self.states(**flush))[:, 0].tolist() == [1, 110, 201]
        assert policy.model.asked == [[0, 1, 2], [1]]
        assert policy.get_action(self.states())[:, 0].tolist() == [2, 111, 202]

    def test_are_scaled_back_action_by_action_and_wait_while_their_env_rests(self):
        pool = box_pool(3, -1000, 1000)
        policy = attached(Chunks((6,)), pool, process={"action": Affine()}, batch_size=3)
        resting = self.states(_active=np.array([True, False, True]))
        assert policy.get_action(self.states())[:, 0].tolist() == [1, 201, 401]
        np.testing.assert_array_equal(policy.get_action(resting)[:, 0], [3, np.nan, 403])
        assert policy.get_action(self.states())[:, 0].tolist() == [5, 203, 405]

    def test_of_integer_spaces_stay_integers(self):
        pool = PoolStub(gym.spaces.Discrete(9), 2)
        policy = attached(Fixed(torch.tensor([[1, 2], [3, 4]])), pool, batch_size=2)
        steps = [policy.get_action(info_of(2)) for _ in range(3)]
        assert [step.tolist() for step in steps] == [[1, 3], [2, 4], [1, 3]]
        assert steps[0].dtype == np.int64

    def test_have_one_length_at_a_time(self):
        policy = attached(Chunks((3, 2)), batch_size=3)
        policy.get_action(self.states())
        policy.model = Fixed(torch.zeros(3, 2, 2))
        policy.reset([0], None)
        with pytest.raises(ContractError, match=r"returned 2 actions per env, and 3 before"):
            policy.get_action(self.states())

    def test_episodes_do_not_depend_on_the_envs_beside_them(self):
        def evaluate(num_envs):
            with World("toy/Walk-v0", num_envs, (8, 8), verbose=0) as world:
                world.set_policy(FeedForwardPolicy(Actor(size=4)))  # of actions of size 1: chunks of four
                return world.evaluate(episodes=5, seed=4, eval_keys=["state", "action"])

        reference, results = evaluate(1), evaluate(3)
        for key in ("state", "action", "episode_lengths"):
            np.testing.assert_array_equal(results[key], reference[key])


class TestRefusals:
    def test_a_goal_is_needed(self):
        info = info_of()
        del info["goal"]
        with pytest.raises(MissingKeyError, match=r"needs 'goal' in info, which has \['names', 'state'\]"):
            attached(Actor()).get_action(info)

    def test_a_pool_is_needed(self):
        with pytest.raises(RuntimeError, match="set_env"):
            FeedForwardPolicy(Actor()).get_action(info_of())

    def test_models_without_get_action_bad_sizes_and_spaces_without_arrays(self):
        with pytest.raises(TypeError, match="get_action"):
            FeedForwardPolicy(nn.Linear(1, 1))
        with pytest.raises(ContractError, match="batch_size"):
            FeedForwardPolicy(Actor(), batch_size=0)
        with pytest.raises(ContractError, match="shape"):
            attached(Actor(), PoolStub(gym.spaces.Tuple([gym.spaces.Discrete(2)]), 2))


class TestInAWorld:
    def evaluate(self, num_envs, episodes=6, **kwargs):
        with World("toy/Walk-v0", num_envs, (8, 8), verbose=0) as world:
            world.set_policy(FeedForwardPolicy(Actor(size=1), **kwargs))
            return world.evaluate(episodes=episodes, seed=4, eval_keys=["state", "action"])

    def test_episodes_are_bit_identical_for_any_num_envs_on_the_cpu(self):
        reference = self.evaluate(1)
        for num_envs in (2, 5):
            results = self.evaluate(num_envs)
            for key in ("state", "action", "episode_lengths"):
                np.testing.assert_array_equal(results[key], reference[key])

    def test_larger_batches_agree_up_to_rounding(self):
        whole = self.evaluate(5, batch_size=5)
        np.testing.assert_allclose(whole["state"], self.evaluate(1)["state"], rtol=1e-4, atol=1e-5)

    def test_the_model_decides(self):
        with World("toy/Walk-v0", 2, (8, 8), verbose=0) as world:
            world.set_policy(RandomPolicy(seed=0))
            other = world.evaluate(episodes=6, seed=4, eval_keys=["state"])
        assert not np.array_equal(other["state"], self.evaluate(2)["state"])
