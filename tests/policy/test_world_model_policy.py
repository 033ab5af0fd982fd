import gymnasium as gym
import numpy as np
import pytest
import torch
from pool_stub import PoolStub, ScriptedSolver, box_pool

from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.policy import PlanConfig, WorldModelPolicy
from stable_worldmodel.policy.prepare import prepare_info
from stable_worldmodel.solver import CEMSolver
from stable_worldmodel.world import World


class Affine:
    """action in env units = 2 * action in the solver's space + 1; counts its calls."""

    def __init__(self):
        self.inverted = 0

    def transform(self, x):
        return (x - 1) / 2

    def inverse_transform(self, x):
        self.inverted += 1
        return 2 * x + 1


class ReachTarget:
    """Drives the sum of a plan's actions to `target` (n, T, 2) of the newest frame."""

    def get_cost(self, info, candidates):
        return (candidates.sum(dim=2) - info["target"][:, None, -1]).square().sum(dim=-1)


def attached(pool=None, solver=None, config=None, **kwargs):
    policy = WorldModelPolicy(solver or ScriptedSolver(), config or PlanConfig(3, 2, action_block=2), **kwargs)
    policy.set_env(pool or box_pool())
    return policy


def info_of(num_envs, **extra):
    return {"state": np.arange(num_envs, dtype=float).reshape(-1, 1, 1), "names": list(range(num_envs)), **extra}


def test_a_queue_is_consumed_in_order_and_refilled_when_empty():
    policy = attached()
    steps = [policy.get_action(info_of(2)) for _ in range(5)]
    assert policy.flatten_receding_horizon == 4
    assert [len(call["keys"]) for call in policy.solver.calls] == [2, 2]
    first = 0.01 * (1 + np.arange(8) / 100).reshape(4, 2)
    for t in range(4):
        np.testing.assert_allclose(steps[t], [first[t], first[t]], rtol=1e-6)
    np.testing.assert_allclose(steps[4][0], 0.02 * (1 + np.array([0, 1]) / 200), rtol=1e-6)
    assert steps[0].shape == (2, 2)
    assert steps[0].dtype == np.float32


def test_only_flushed_envs_are_replanned():
    policy = attached()
    policy.get_action(info_of(2))
    policy.get_action(info_of(2, _needs_flush=np.array([False, True])))
    assert policy.solver.calls[1]["info"]["names"] == [1]
    assert policy.solver.calls[1]["info"]["state"].tolist() == [[[1.0]]]
    assert "_needs_flush" not in policy.solver.calls[1]["info"]


def test_the_unexecuted_tail_starts_the_next_plan():
    policy = attached(config=PlanConfig(3, 1))
    for _ in range(2):
        policy.get_action(info_of(2))
    assert policy.solver.calls[0]["init_action"] is None
    expected = 0.01 * (1 + torch.arange(2, 6) / 100).reshape(1, 2, 2).repeat(2, 1, 1)
    torch.testing.assert_close(policy.solver.calls[1]["init_action"], expected)


def test_envs_with_and_without_a_tail_are_solved_apart():
    policy = attached(config=PlanConfig(3, 1), pool=box_pool(3))
    policy.get_action(info_of(3))
    policy.get_action(info_of(3, _needs_flush=np.array([False, True, False])))
    cold, warm = policy.solver.calls[1:]
    assert cold["init_action"] is None
    assert cold["info"]["names"] == [1]
    assert warm["init_action"].shape == (2, 2, 2)
    assert warm["info"]["names"] == [0, 2]


@pytest.mark.parametrize("config", [PlanConfig(3, 1, warm_start=False), PlanConfig(3, 3)])
def test_there_is_no_warm_start_when_switched_off_or_fully_executed(config):
    policy = attached(config=config)
    for _ in range(4):
        policy.get_action(info_of(2))
    assert all(call["init_action"] is None for call in policy.solver.calls)


class TestEndedEnvs:
    @pytest.mark.parametrize("key", ["terminated", "truncated"])
    def test_get_nan_and_are_not_planned_for(self, key):
        policy = attached()
        actions = policy.get_action(info_of(2, **{key: np.array([[True], [False]])}))
        assert np.isnan(actions[0]).all()
        assert np.isfinite(actions[1]).all()
        assert policy.solver.calls[0]["info"]["names"] == [1]

    def test_are_those_the_world_says_if_it_does(self):
        policy = attached()
        info = info_of(2, terminated=np.array([[True], [False]]), _active=np.array([True, False]))
        actions = policy.get_action(info)
        assert np.isnan(actions).all(axis=1).tolist() == [False, True]

    def test_nothing_is_solved_when_all_have_ended(self):
        policy = attached()
        assert np.isnan(policy.get_action(info_of(2, _active=np.zeros(2, bool)))).all()
        assert policy.solver.calls == []

    @pytest.mark.parametrize("space", [gym.spaces.Discrete(5), gym.spaces.MultiDiscrete([5, 5])])
    def test_get_zero_in_integer_spaces(self, space):
        pool = PoolStub(space, 2)
        policy = attached(pool, ScriptedSolver(torch.int64, scale=1), PlanConfig(2, 1))
        actions = policy.get_action(info_of(2, _active=np.array([True, False])))
        assert actions.shape == pool.action_space.shape
        assert actions.dtype.kind == "i"
        assert (actions[0] == 1).all()
        assert (actions[1] == 0).all()


class TestActionScaling:
    def test_actions_are_inverse_transformed_once_per_plan(self):
        scaler = Affine()
        policy = attached(box_pool(low=-9, high=9), process={"action": scaler})
        actions = [policy.get_action(info_of(2)) for _ in range(4)]
        assert scaler.inverted == 1
        np.testing.assert_allclose(actions[3][0], 1 + 0.02 * (1 + np.array([6, 7]) / 100), rtol=1e-6)

    def test_box_bounds_reach_the_solver_in_its_own_space(self):
        policy = attached(box_pool(low=-3, high=np.inf), process={"action": Affine()})
        low, high = policy.solver.action_bounds
        assert low.tolist() == [-2, -2]
        assert high.tolist() == [np.inf, np.inf]

    def test_unbounded_and_integer_spaces_have_no_bounds(self):
        assert attached(box_pool(low=-np.inf, high=np.inf)).solver.action_bounds is None
        assert attached(PoolStub(gym.spaces.Discrete(3), 2)).solver.action_bounds is None

    def test_executed_actions_lie_in_the_action_space(self):
        policy = attached(box_pool(low=-0.015, high=0.015), config=PlanConfig(2, 2))
        for _ in range(4):
            assert policy.get_action(info_of(2)) in policy.env.action_space


class TestNoiseKeys:
    def test_are_episode_seed_and_decision_index(self):
        policy = attached(config=PlanConfig(1, 1))
        policy.reset([0, 1], np.array([40, 41]))
        policy.get_action(info_of(2))
        policy.reset([1], np.array([42]))
        policy.get_action(info_of(2))
        assert [call["keys"] for call in policy.solver.calls] == [[[40, 0], [41, 0]], [[40, 1], [42, 0]]]

    def test_without_episode_seeds_are_slot_and_a_count_that_goes_on(self):
        policy = attached(config=PlanConfig(1, 1))
        policy.get_action(info_of(2))
        policy.reset([0, 1], None)
        policy.get_action(info_of(2))
        assert [call["keys"] for call in policy.solver.calls] == [[[-1, 0], [-2, 0]], [[-1, 1], [-2, 1]]]

    def test_reset_drops_the_plan(self):
        policy = attached()
        policy.get_action(info_of(2))
        policy.reset([0], [5])
        policy.get_action(info_of(2))
        assert policy.solver.calls[1]["info"]["names"] == [0]

    def test_a_solver_of_the_bare_protocol_gets_neither_keys_nor_bounds(self):
        class Bare:
            n_envs, action_dim, horizon = 2, 2, 1

            def configure(self, *, action_space, n_envs, config): ...

            def solve(self, info, init_action=None):
                return {"actions": torch.zeros(len(info["state"]), 1, 2)}

        policy = attached(solver=Bare(), config=PlanConfig(1, 1))
        assert (policy.get_action(info_of(2)) == 0).all()


class TestPreparation:
    def test_happens_only_when_planning_and_only_for_envs_that_plan(self):
        seen = []
        policy = attached(transform={"pixels": lambda item: seen.append(item.shape) or item})
        pixels = np.zeros((2, 1, 8, 8, 3), np.uint8)
        for _ in range(3):
            policy.get_action(info_of(2, pixels=pixels, _active=np.array([False, True])))
        assert seen == [(3, 8, 8)]

    def test_images_reach_the_solver_channel_first(self):
        policy = attached()
        policy.get_action(info_of(2, pixels=np.zeros((2, 1, 8, 6, 3), np.uint8)))
        pixels = policy.solver.calls[0]["info"]["pixels"]
        assert pixels.shape == (2, 1, 3, 8, 6)
        assert pixels.dtype == torch.uint8


class TestHistory:
    config = PlanConfig(2, 1, history_len=3, action_block=2)

    def step(self, policy, t, **extra):
        """Frame t shows t; the action that led to it is t in env units, NaN at a reset."""
        num_envs = policy.env.num_envs
        pixels = np.full((num_envs, 1, 4, 4, 3), t, np.uint8)
        action = np.full((num_envs, 1, 2), np.nan if t == 0 else t, np.float32)
        return policy.get_action(info_of(num_envs, pixels=pixels, action=action, **extra))

    def frames(self, call):
        return call["info"]["pixels"][:, :, 0, 0, 0].tolist()

    def test_the_context_grows_to_its_length_and_pairs_frames_with_the_blocks_leaving_them(self):
        policy = attached(config=self.config, process={"action": Affine()})
        for t in range(7):
            self.step(policy, t)
        assert [self.frames(call)[0] for call in policy.solver.calls] == [[0], [0, 2], [0, 2, 4], [2, 4, 6]]
        assert "action_history" not in policy.solver.calls[0]["info"]
        history = policy.solver.calls[3]["info"]["action_history"]  # scaled, (n, L - 1, A)
        assert history.shape == (2, 2, 4)
        assert history[0].tolist() == [[1.0, 1.0, 1.5, 1.5], [2.0, 2.0, 2.5, 2.5]]

    def test_a_reset_starts_a_new_context_and_envs_are_solved_with_their_own(self):
        policy = attached(config=self.config)
        for t in range(4):
            self.step(policy, t)
        self.step(policy, 4, _needs_flush=np.array([False, True]))
        short, long = policy.solver.calls[2:]
        assert (short["info"]["names"], self.frames(short)) == ([1], [[4]])
        assert (long["info"]["names"], self.frames(long)) == ([0], [[0, 2, 4]])

    def test_missing_keys_are_named(self):
        with pytest.raises(MissingKeyError, match="proprio"):
            self.step(attached(config=self.config, history_keys=("pixels", "proprio")), 0)


def test_actions_of_an_episode_do_not_depend_on_the_envs_beside_it():
    def run(seeds, targets, steps=3):
        solver = CEMSolver(cost=ReachTarget(), num_samples=32, topk=4, n_steps=3)
        policy = attached(box_pool(len(seeds)), solver, PlanConfig(3, 1, action_block=1))
        policy.reset(range(len(seeds)), seeds)
        target = np.array(targets, np.float32)[:, None]
        return np.stack([policy.get_action({"target": target - 0.1 * t}) for t in range(steps)])

    targets = [[0.5, -0.5], [1.5, 0.2], [-1.0, 1.0]]
    together = run([7, 8, 9], targets)
    np.testing.assert_array_equal(run([8], targets[1:2])[:, 0], together[:, 1])
    np.testing.assert_array_equal(run([9, 7], [targets[2], targets[0]])[:, ::-1], together[:, [0, 2]])


def test_the_wrong_solver_or_plan_is_refused():
    with pytest.raises(TypeError, match="not a Solver"):
        attached(solver=object())
    with pytest.raises(RuntimeError, match="set_env"):
        WorldModelPolicy(ScriptedSolver(), PlanConfig(1, 1)).get_action({})

    class Short(ScriptedSolver):
        def solve(self, info, init_action=None, *, keys=None):
            return {"actions": super().solve(info, init_action, keys=keys)["actions"][:, :1]}

    with pytest.raises(ContractError, match=r"expected \(2, 3, 4\)"):
        attached(solver=Short()).get_action(info_of(2))


class TestImages:
    """Grey, colour and RGBA frames, one view or several, reach the solver channel-first, and their goals with them."""

    VIEWS = ("pixels", "goal", "pixels.front", "pixels.1", "goal_pixels.front", "goal_pixels.1")

    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_of_every_view_and_channel_count_become_channel_first(self, channels):
        frames = np.random.default_rng(0).integers(0, 256, (2, 1, 8, 6, channels), np.uint8)
        policy = attached(transform={"goal_pixels.1": lambda image: image[:, ::2].float()})
        policy.get_action(info_of(2, **dict.fromkeys(self.VIEWS, frames)))
        seen = policy.solver.calls[0]["info"]
        for view in self.VIEWS[:-1]:
            assert seen[view].dtype == torch.uint8
            np.testing.assert_array_equal(seen[view].numpy(), np.moveaxis(frames, -1, -3))
        assert seen["goal_pixels.1"].shape == (2, 1, channels, 4, 6)

    @pytest.mark.parametrize("channels", [1, 4])
    def test_that_a_world_draws_in_grey_or_rgba_too(self, channels):
        solver = ScriptedSolver()
        with World("toy/Walk-v0", 2, (8, 6, channels), verbose=0) as world:
            world.set_policy(WorldModelPolicy(solver, PlanConfig(2, 2)))
            world.reset(seed=0)
            world.step()
        for key in ("pixels", "goal"):
            assert solver.calls[0]["info"][key].shape == (2, 1, channels, 8, 6)

    def test_of_several_views_have_a_history(self):
        keys = ("pixels.front", "pixels.side")
        policy = attached(config=PlanConfig(2, 1, history_len=2), history_keys=keys)
        for t in range(2):
            frames = np.full((2, 1, 4, 5, 3), t, np.uint8)
            policy.get_action(info_of(2, action=np.zeros((2, 1, 2)), **dict.fromkeys(keys, frames)))
        for key in keys:
            seen = policy.solver.calls[1]["info"][key]
            assert seen.shape == (2, 2, 3, 4, 5)
            assert seen[:, :, 0, 0, 0].tolist() == [[0, 1], [0, 1]]

    def test_are_not_seen_in_small_matrices_of_bytes(self):
        board = np.zeros((2, 1, 5, 3), np.uint8)
        assert prepare_info({"goal_board": board}, {}, {})["goal_board"].shape == (2, 1, 5, 3)


class TestDiscreteActions:
    @pytest.mark.parametrize("space", [gym.spaces.Discrete(9), gym.spaces.MultiDiscrete([9, 9])])
    def test_are_queued_in_blocks_and_the_tail_stays_integer(self, space):
        pool = PoolStub(space, 2)
        size = int(np.prod(space.shape))
        policy = attached(pool, CountingSolver(), PlanConfig(3, 1, action_block=2), process={"action": Affine()})
        taken = [policy.get_action(info_of(2)).reshape(2, size) for _ in range(4)]
        expected = np.arange(2 * size).reshape(2, size)
        for t in range(4):  # the second plan is the first one moved by a macro step, as the warm start says
            np.testing.assert_array_equal(taken[t], [expected[t % 2] + 2 * size * (t // 2)] * 2)
            assert taken[t].dtype.kind == "i"

    def test_drive_a_world(self):
        solver = ScriptedSolver(torch.int64, scale=1)
        with World("toy/Coin-v0", 2, add_pixels=False, max_episode_steps=4, goal_conditioned=False, verbose=0) as world:
            world.set_policy(WorldModelPolicy(solver, PlanConfig(1, 1)))
            world.reset(seed=0)
            world.step()
            assert world.infos["action"].tolist() == [[1], [1]]


class CountingSolver(ScriptedSolver):
    """Plans 0, 1, 2, …; or goes on from where its warm start begins."""

    def solve(self, info, init_action=None, *, keys=None):
        steps = torch.arange(self.horizon * self.action_dim).reshape(1, self.horizon, -1).repeat(len(keys), 1, 1)
        return {"actions": steps if init_action is None else steps + init_action[:, :1, :1]}


class Homing(torch.nn.Module):
    """Drives the walker to the origin; what it looked back on counts a little too. Fails when told to."""

    def __init__(self):
        super().__init__()
        self.fail_after = None

    def get_cost(self, info, candidates):
        if self.fail_after is not None:
            self.fail_after -= 1
            if self.fail_after < 0:
                raise RuntimeError("the model broke")
        end = info["state"][:, -1:] + candidates.sum(dim=2)
        past = 0.1 * info["state"].sum(dim=(1, 2)) + info.get("action_history", torch.zeros(1, 1, 1)).sum(dim=(1, 2))
        return (end - 0.1 * past[:, None, None]).square().sum(dim=2)


class TestInAWorld:
    KEYS = ("state", "action")

    def policy(self, solver=None, config=None, **kwargs):
        solver = solver or CEMSolver(cost=Homing(), num_samples=16, n_steps=2, topk=4)
        config = config or PlanConfig(horizon=4, receding_horizon=2, history_len=2, action_block=1)
        return WorldModelPolicy(solver, config, history_keys=("state",), **kwargs)

    def world(self, num_envs=3):
        return World("toy/Walk-v0", num_envs, (8, 8), verbose=0)

    def evaluate(self, world, seed=0):
        results = world.evaluate(episodes=7, seed=seed, eval_keys=self.KEYS)
        return [results[key].tolist() for key in (*self.KEYS, "episode_lengths")]

    def reference(self, seed=0):
        with self.world() as world:
            world.set_policy(self.policy())
            return self.evaluate(world, seed)

    def test_evaluating_twice_gives_the_same_episodes_bit_for_bit(self):
        with self.world() as world:
            world.set_policy(self.policy())
            runs = [self.evaluate(world, seed) for seed in (0, 0, 50, 0)]
        assert runs[0] == runs[1] == runs[3] == self.reference()
        assert runs[2] != runs[0]

    @pytest.mark.parametrize("calls", range(1, 30, 4))
    def test_nothing_is_left_of_a_run_that_broke_off(self, calls):
        policy = self.policy()
        with self.world() as world:
            world.set_policy(policy)
            policy.solver.cost.fail_after = calls
            with pytest.raises(RuntimeError, match="the model broke"):
                world.evaluate(episodes=7, seed=900)
            policy.solver.cost.fail_after = None
            assert self.evaluate(world) == self.reference()

    def test_nothing_is_left_of_steps_by_hand_or_of_another_world(self):
        policy = self.policy()
        with self.world() as world, self.world(5) as other:
            for used in (world, other):
                used.set_policy(policy)
                used.reset(seed=123)
                for _ in range(3):
                    used.step()
            world.set_policy(policy)
            assert self.evaluate(world) == self.reference()

    def test_every_episode_starts_with_a_plan_of_its_own_whatever_the_others_are_in_the_middle_of(self):
        for num_envs in (1, 3, 7):
            solver = ScriptedSolver()
            with self.world(num_envs) as world:
                world.set_policy(self.policy(solver, PlanConfig(3, 2, action_block=2)))
                results = world.evaluate(episodes=7, seed=40)
            decisions = [tuple(key) for call in solver.calls for key in call["keys"]]
            expected = [
                (40 + episode, plan)
                for episode, length in enumerate(results["episode_lengths"])
                for plan in range(-(-length // 4))  # no plan after the end
            ]
            assert sorted(decisions) == expected
            cold = [key for call in solver.calls if call["init_action"] is None for key in call["keys"]]
            assert sorted(cold) == [[40 + episode, 0] for episode in range(7)]

    def test_transforms_run_once_per_frame_that_is_planned_on(self):
        seen = []
        solver = ScriptedSolver()
        policy = self.policy(
            solver, PlanConfig(2, 2, action_block=2), transform={"pixels": lambda image: seen.append(1) or image}
        )
        with self.world() as world:
            world.set_policy(policy)
            results = world.evaluate(episodes=7, seed=0)
        plans = sum(len(call["keys"]) for call in solver.calls)
        assert len(seen) == plans
        assert plans < results["episode_lengths"].sum()
