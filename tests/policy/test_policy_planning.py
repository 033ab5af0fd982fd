"""Where the policy and the planners meet: goals remembered, warm starts merged, errors that name envs."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from pool_stub import PoolStub

from stable_worldmodel.planning import CEMSolver, GoalMSE, MPPISolver, ShootingCostEvaluator
from stable_worldmodel.policy import PlanConfig, WorldModelPolicy
from stable_worldmodel.policy.memory import GoalMemory, LatentMemory
from stable_worldmodel.solver.problem import NoFiniteCostError
from stable_worldmodel.wm.lewm import LeWM, LeWMConfig


class ToyDynamics(torch.nn.Module):
    """Latent of width 6 from (n, T, C, h, w) uint8 pixels; each action shifts it. Remembers what it encodes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.step = torch.nn.Linear(3 * 4 * 4, 6), torch.nn.Linear(6 + 2, 6)
        self.encoded = []

    def encode(self, info):
        self.encoded.append(tuple(info["pixels"].shape))
        return {**info, "emb": self.encoder(info["pixels"].flatten(2).float() / 255)}

    def rollout(self, info, candidates):
        latents = [info["emb"][:, -1:].expand(-1, candidates.shape[1], -1)]
        for action in candidates.unbind(dim=2):
            latents.append(torch.tanh(self.step(torch.cat([latents[-1], action], dim=-1))))
        return {**info, "predicted_emb": torch.stack(latents, dim=2)}


class ActingDynamics(ToyDynamics):
    def get_action(self, info, horizon=1, prefix_actions=None):
        return torch.zeros(len(info["pixels"]), horizon, 2)


def info(n=3, goal_seed=1, seed=0):
    draw = np.random.default_rng
    images = {"pixels": draw(seed), "goal": draw(goal_seed)}
    frames = {key: rng.integers(0, 256, (n, 1, 4, 4, 3), np.uint8) for key, rng in images.items()}
    return {**frames, "terminated": np.zeros((n, 1), bool)}


def attached(model, n=3, kind=CEMSolver, config=None, **kwargs):
    cost = ShootingCostEvaluator(model, GoalMSE())
    solver = kind(cost=cost, num_samples=8, topk=2, n_steps=2, **kwargs)
    policy = WorldModelPolicy(solver, config or PlanConfig(3, 1))
    policy.set_env(PoolStub(gym.spaces.Box(-1, 1, (2,)), n))
    return policy


def test_an_unchanged_goal_is_encoded_once_per_episode():
    model = ToyDynamics()
    policy = attached(model, batch_size=3)
    policy.reset([0, 1, 2], [10, 11, 12])
    encoded = []
    for t in range(3):
        model.encoded.clear()
        policy.get_action(info(seed=t))
        encoded.append(len(model.encoded))
    assert encoded == [2, 1, 1]  # goal and observation, then observations only


def test_plans_with_a_remembered_goal_are_those_without():
    class Forgetful(GoalMemory):
        def remember(self, *arguments):
            pass

    plans = []
    for memory in (GoalMemory, Forgetful):
        policy = attached(ToyDynamics())
        policy._goals = memory(3)
        policy.reset([0, 1, 2], [10, 11, 12])
        plans.append([policy.get_action(info(seed=t)) for t in range(4)])
    np.testing.assert_array_equal(*plans)


@pytest.mark.parametrize("change", ["reset", "flush", "other goal"])
def test_a_goal_that_may_have_changed_is_encoded_again(change):
    model = ToyDynamics()
    policy = attached(model, batch_size=3)
    policy.reset([0, 1, 2], [10, 11, 12])
    policy.get_action(info())
    later = info(seed=5)
    if change == "reset":
        policy.reset([1], [13])
    elif change == "flush":
        later["_needs_flush"] = np.array([False, True, False])
    else:
        later["goal"][1] = 0
    model.encoded.clear()
    policy.get_action(later)
    assert len(model.encoded) == 2


def test_envs_with_and_without_a_tail_are_solved_together_where_zeros_fill_it():
    for model, calls in ((ToyDynamics(), [3]), (ActingDynamics(), [1, 2])):
        policy = attached(model)
        policy.reset([0, 1, 2], [10, 11, 12])
        policy.get_action(info())
        policy.reset([1], [13])
        seen = []
        solve = policy.solver.solve
        policy.solver.solve = lambda prepared, solve=solve, seen=seen, **k: (
            seen.append(len(prepared["pixels"])),
            solve(prepared, **k),
        )[1]
        policy.get_action(info(seed=2))
        assert sorted(seen) == calls


def test_merging_changes_no_plan():
    actions = []
    for merges in (True, False):
        policy = attached(ToyDynamics())
        policy._merges_tails = merges
        policy.reset([0, 1, 2], [10, 11, 12])
        policy.get_action(info())
        policy.reset([1], [13])
        actions.append(policy.get_action(info(seed=2)))
    np.testing.assert_array_equal(*actions)


def test_the_error_about_costs_that_are_not_finite_names_the_env():
    class Breaking(ToyDynamics):
        def rollout(self, info, candidates, **options):
            rolled_out = super().rollout(info, candidates)
            broken = info["pixels"].flatten(1).sum(dim=1) == 0
            rolled_out["predicted_emb"] = rolled_out["predicted_emb"].masked_fill(broken.view(-1, 1, 1, 1), torch.nan)
            return rolled_out

    policy = attached(Breaking(), config=PlanConfig(3, 2))
    policy.reset([0, 1, 2], [10, 11, 12])
    dark = info()
    dark["pixels"][2] = 0
    dark["_active"] = np.array([False, True, True])
    with pytest.raises(NoFiniteCostError, match=r"envs \[2\].*iteration 0"):
        policy.get_action(dark)


def test_every_episode_has_the_noise_of_its_seed():
    """The same episode in another slot, beside other episodes, gets the same actions."""
    first, second = (attached(ToyDynamics(), n=n, kind=MPPISolver) for n in (3, 5))
    first.reset([0, 1, 2], [10, 11, 12])
    second.reset([0, 1, 2, 3, 4], [7, 8, 9, 12, 6])
    for t in range(3):
        small, large = info(3, seed=t), info(5, seed=50 + t)
        for key in ("pixels", "goal"):
            large[key][3] = small[key][2]
        np.testing.assert_array_equal(first.get_action(small)[2], second.get_action(large)[3])


class Framewise(ToyDynamics):
    """Predicts from the mean of its context."""

    framewise = True

    def __init__(self):
        super().__init__()
        self.step = torch.nn.Linear(6 + 4, 6)  # two env actions per macro step

    def rollout(self, info, candidates):
        mean = info["emb"].mean(dim=1, keepdim=True) + info["emb"].shape[1]
        return super().rollout({**info, "emb": mean}, candidates)


class TestLatentsOfPastFrames:
    def run(self, memory=None, receding=1, rests=(), model=None, n=3, steps=8):
        """Actions of the envs, and how many frames were encoded as observations of each env in every step."""
        model = model or Framewise()
        policy = attached(model, n, config=PlanConfig(3, receding, history_len=3, action_block=2), batch_size=n)
        policy._latents = memory or policy._latents
        policy.reset(range(n), [10 + i for i in range(n)])
        actions, encoded = [], []
        for t in range(steps):
            model.encoded.clear()
            active = np.array([not (i == 0 and t in rests) for i in range(n)])
            seen = {**info(n, seed=t), "action": np.full((n, 1, 2), t / 10), "_active": active}
            actions.append(policy.get_action(seen))
            encoded.append([shape[:2] for shape in model.encoded if shape[0]])
        return np.stack(actions), encoded

    class Forgetful(LatentMemory):
        def remember(self, *arguments):
            pass

    def test_are_not_encoded_again_when_every_macro_step_is_planned_anew(self):
        encoded = self.run()[1]
        assert encoded[0] == [(3, 1), (3, 1)]  # goal and observation
        assert encoded[2::2] == [[(3, 1)]] * 3
        assert self.run(self.Forgetful(3, 3, 2))[1][2::2] == [[(3, 2)], [(3, 3)], [(3, 3)]]

    def test_change_no_plan(self):
        kept, again = self.run()[0], self.run(self.Forgetful(3, 3, 2))[0]
        np.testing.assert_allclose(kept, again, atol=1e-5)
        assert np.ptp(kept) > 0.1

    def test_make_no_plan_depend_on_other_envs(self):
        np.testing.assert_array_equal(self.run(n=3)[0][:, :1], self.run(n=1)[0])

    def test_are_encoded_again_if_other_frames_were_seen_since(self):
        assert self.run(receding=2)[1][4] == [(3, 3)]
        encoded = self.run(rests=(4,))[1]
        assert encoded[4] == [(2, 1)]
        assert encoded[5] == [(1, 3)]  # env 0 plans a step later than its frames are apart
        assert encoded[7] == [(1, 1)]

    def test_are_not_kept_of_models_that_do_not_say_that_frames_are_independent(self):
        class Recurrent(Framewise):
            framewise = False

        assert self.run(model=Recurrent())[1][4] == [(3, 3)]

    def test_a_world_model_of_this_library_plans_the_same(self):
        plans = []
        for forget in (False, True):
            torch.manual_seed(0)
            model = LeWM(LeWMConfig.preset("debug", action_dim=4)).eval()
            policy = attached(model, 2, config=PlanConfig(3, 1, history_len=3, action_block=2))
            policy._latents = self.Forgetful(2, 3, 2) if forget else policy._latents
            policy.reset([0, 1], [3, 4])
            rng = np.random.default_rng(0)
            goal = rng.integers(0, 256, (2, 1, 32, 32, 3), np.uint8)
            steps = []
            for _ in range(7):
                pixels = rng.integers(0, 256, (2, 1, 32, 32, 3), np.uint8)
                steps.append(policy.get_action({"pixels": pixels, "goal": goal, "action": rng.normal(size=(2, 1, 2))}))
            plans.append(np.stack(steps))
        np.testing.assert_allclose(*plans, atol=1e-3)
