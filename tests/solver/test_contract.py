"""What every planner promises, whatever its algorithm."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quadratic import IntegratorCost, LinearModelCost, TargetCost

from stable_worldmodel.errors import ContractError
from stable_worldmodel.policy import PlanConfig
from stable_worldmodel.solver import (
    CEMSolver,
    GDSolver,
    GradientSolver,
    ICEMSolver,
    LagrangianSolver,
    MPPISolver,
    NevergradSolver,
    PredictiveSamplingSolver,
    RandomSolver,
    Solver,
)
from stable_worldmodel.solver.callbacks import BestCostRecorder
from stable_worldmodel.solver.old_mppi import MPPI
from stable_worldmodel.solver.problem import NoFiniteCostError


class RandomSearch:
    """The least ask/tell optimiser."""

    def __init__(self, start, low, high, budget, num_workers, seed):
        self.rng, self.start = np.random.default_rng(seed), start

    def ask(self):
        return self.start + self.rng.normal(size=self.start.shape)

    def tell(self, point, cost):
        assert np.isfinite(cost)


def small(solver, samples=12, topk=4, steps=3):
    """A factory cost -> solver with this budget."""
    adam = {"optimizer_cls": torch.optim.Adam, "optimizer_kwargs": {"lr": 0.2}}
    table = {
        "cem": lambda cost, **k: CEMSolver(cost=cost, num_samples=samples, n_steps=steps, topk=topk, **k),
        "cem best": lambda cost, **k: CEMSolver(
            cost=cost, num_samples=samples, n_steps=steps, topk=topk, alpha=0.2, return_mean=False, **k
        ),
        "cem captured": lambda cost, **k: CEMSolver(
            cost=cost, num_samples=samples, n_steps=steps, topk=topk, compiled=True, **k
        ),
        "icem": lambda cost, **k: ICEMSolver(cost=cost, num_samples=samples, n_steps=steps, topk=topk, **k),
        "icem paper": lambda cost, **k: ICEMSolver(
            cost=cost, num_samples=samples, n_steps=steps, topk=topk, mode="paper", **k
        ),
        "mppi": lambda cost, **k: MPPISolver(cost=cost, num_samples=samples, n_steps=steps, topk=topk, **k),
        "mppi published": lambda cost, **k: MPPISolver(
            cost=cost, num_samples=samples, n_steps=steps, use_elites=False, relative=False, adapt_std=False, **k
        ),
        "tdmpc2": lambda cost, **k: MPPISolver.tdmpc2(cost, num_samples=samples, n_steps=steps, topk=topk, **k),
        "predictive": lambda cost, **k: PredictiveSamplingSolver(cost=cost, num_samples=samples, **k),
        "gradient": lambda cost, **k: GradientSolver(cost=cost, n_steps=steps, num_samples=3, **adam, **k),
        "lagrangian": lambda cost, **k: LagrangianSolver(cost=cost, n_steps=steps, num_samples=2, **k),
        "nevergrad": lambda cost, **k: NevergradSolver(
            cost=cost, optimizer=RandomSearch, n_steps=steps, num_samples=samples, **k
        ),
    }
    return table[solver]


SAMPLING = ("cem", "cem best", "cem captured", "icem", "icem paper", "mppi", "mppi published", "tdmpc2", "predictive")
ALL = (*SAMPLING, "gradient", "lagrangian", "nevergrad")
KEYS = np.array([[11, 0], [12, 3], [13, 5], [14, 0], [15, 9]])


def configured(solver, n_envs=3, size=2, horizon=3, block=1, bounds=None):
    config = PlanConfig(horizon=horizon, receding_horizon=1, action_block=block)
    space = gym.spaces.Box(-1, 1, (n_envs, size))
    solver.configure(action_space=space, n_envs=n_envs, config=config, action_bounds=bounds)
    return solver


def target_info(n=3, horizon=3, action=2, seed=0):
    return {"target": np.random.default_rng(seed).uniform(-0.8, 0.8, (n, horizon, action)).astype(np.float32)}


def row(info, i):
    return {key: value[i : i + 1] for key, value in info.items()}


def own_costs(info, actions):
    return (actions - torch.from_numpy(info["target"])).square().sum(dim=(1, 2)).tolist()


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=8, deadline=None)
@given(
    n=st.integers(1, 3),
    size=st.integers(1, 2),
    horizon=st.integers(1, 4),
    block=st.integers(1, 3),
    samples=st.integers(1, 6),
    data=st.data(),
)
def test_any_problem_size(name, n, size, horizon, block, samples, data):
    topk = data.draw(st.integers(1, samples))
    solver = configured(small(name, samples, topk, 2)(TargetCost()), n, size, horizon, block)
    assert isinstance(solver, Solver)
    assert (solver.n_envs, solver.action_dim, solver.horizon) == (n, size * block, horizon)
    info = target_info(n, horizon, size * block)
    result = solver.solve(info)
    assert result["actions"].shape == (n, horizon, size * block)
    assert result["actions"].isfinite().all()
    assert result["actions"].device.type == "cpu"
    assert not result["actions"].requires_grad
    assert result["costs"] == pytest.approx(own_costs(info, result["actions"]), rel=1e-4, abs=1e-6)
    assert result["excluded"] == [0] * n
    assert set(result["timing"]) == {"prepare", "encode", "optimise", "total"}
    assert result["model_steps"] > 0


@pytest.mark.parametrize("name", ALL)
def test_calling_is_solving_and_the_same_seed_gives_the_same_plan(name):
    info = target_info()
    first = configured(small(name, samples=200)(TargetCost(), seed=5)).solve(info)
    second = configured(small(name, samples=200)(TargetCost(), seed=5))(info)
    other = configured(small(name, samples=200)(TargetCost(), seed=6)).solve(info)
    assert torch.equal(first["actions"], second["actions"])
    if name not in ("gradient", "lagrangian"):  # whose best start is the warm start here
        assert not torch.equal(first["actions"], other["actions"])


@pytest.mark.parametrize("cost", [TargetCost, LinearModelCost])
@pytest.mark.parametrize("name", ALL)
def test_a_plan_does_not_depend_on_what_is_solved_beside_it(name, cost):
    info = target_info(5) | {"state": np.random.default_rng(1).normal(size=(5, 1, 4))}
    together = configured(small(name)(cost()), n_envs=5).solve(info, keys=KEYS)["actions"]
    alone = configured(small(name)(cost()), n_envs=5)
    for i in (4, 0, 2):
        plan = alone.solve(row(info, i), keys=KEYS[i : i + 1])["actions"]
        # Gradients of a batched model may round differently.
        torch.testing.assert_close(plan[0], together[i], rtol=0.0, atol=0.0 if name in SAMPLING else 1e-5)
    chunks = configured(small(name)(cost(), batch_size=2), n_envs=5).solve(info, keys=KEYS)["actions"]
    torch.testing.assert_close(chunks, together, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_bounds_hold_for_every_candidate_and_plan(name):
    cost = TargetCost()
    low, high = np.array([-0.3, -np.inf]), np.array([0.2, 0.1])
    solver = configured(small(name)(cost), block=2, bounds=(low, high))
    result = solver.solve(target_info(action=4), init_action=torch.full((3, 3, 4), 5.0))
    lows, highs = (torch.from_numpy(np.tile(bound, 2)).float() for bound in (low, high))
    for tensor in (result["actions"], *cost.seen):
        assert (tensor >= lows).all()
        assert (tensor <= highs).all()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("length", [0, 1, 3])
def test_a_warm_start_is_used_and_never_modified(name, length):
    info = target_info()
    start = torch.from_numpy(info["target"])[:, :length].clone()
    before = start.clone()
    result = configured(small(name)(TargetCost())).solve(info, init_action=start)
    assert torch.equal(start, before)
    if length == 3 and name not in ("icem paper", "tdmpc2", "mppi published"):  # which may move away from an optimum
        assert max(result["costs"]) < max(configured(small(name)(TargetCost())).solve(info)["costs"])


def _on_gpu(start):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    return start.cuda()


@pytest.mark.parametrize("kind", [torch.Tensor.numpy, torch.Tensor.double, torch.Tensor.tolist, _on_gpu])
def test_a_warm_start_may_be_of_any_kind_and_on_any_device(kind):
    start = torch.full((3, 2, 2), 0.25)
    plain, other = (
        configured(small("cem")(TargetCost())).solve(target_info(), init_action=given, keys=KEYS[:3])["actions"]
        for given in (start, kind(start))
    )
    assert torch.equal(plain, other)


@pytest.mark.parametrize("name", ALL)
def test_nan_and_infinite_candidates_are_left_out_and_counted(name):
    class Broken(TargetCost):
        """Costs nothing can be said about wherever the first action is positive."""

        def get_cost(self, info, candidates):
            costs = super().get_cost(info, candidates)
            first = candidates[:, :, 0, 0]
            bad = torch.where(first > 0.5, torch.inf, torch.where(first > 0.25, -torch.inf, torch.nan))
            return torch.where(first > 0.0, bad, costs)

    info = {"target": np.full((2, 3, 2), 0.5, np.float32)}
    start = torch.full((2, 3, 2), -0.2)
    result = configured(small(name, samples=40, topk=20)(Broken()), n_envs=2).solve(info, init_action=start)
    assert (result["actions"][:, 0, 0] <= 0.0).all()
    assert np.isfinite(result["costs"]).all()
    if name not in ("gradient", "lagrangian"):
        assert min(result["excluded"]) > 0


@pytest.mark.parametrize("name", ALL)
def test_an_env_without_any_finite_cost_is_named_with_the_iteration(name):
    info = target_info()
    info["target"][1] = np.nan
    with pytest.raises(NoFiniteCostError, match=r"rows \[1\].*iteration 0") as caught:
        configured(small(name)(TargetCost())).solve(info)
    assert (caught.value.rows, caught.value.iteration) == ([1], 0)


@pytest.mark.parametrize("name", ALL)
def test_the_cost_may_be_called_model_and_only_one_of_them_given(name):
    cost = TargetCost()
    assert small(name)(cost).cost is cost
    with pytest.raises((ContractError, TypeError), match=r"exactly one|get_cost"):
        small(name)(None)


def test_the_noise_of_a_decision_is_another_one_in_the_next():
    info = target_info(1)
    solver = configured(small("cem")(TargetCost()))
    first, second = (solver.solve(info, keys=np.array([[7, d]]))["actions"] for d in (0, 1))
    assert not torch.equal(first, second)


def test_costs_are_prepared_once_per_solve():
    for name in ALL:
        cost = LinearModelCost()
        solver = configured(small(name)(cost), n_envs=4)
        solver.solve({"state": np.zeros((4, 1, 4), np.float32)})
        assert sum(cost.prepared) == 4, name


@pytest.mark.parametrize("kind", [CEMSolver, ICEMSolver, MPPISolver])
def test_the_loop_that_is_captured_on_cuda_gives_the_same_numbers(kind):
    info = target_info(5) | {"state": np.random.default_rng(1).normal(size=(5, 1, 4))}
    for cost in (TargetCost, LinearModelCost):
        eager, captured = (
            configured(kind(cost=cost(), num_samples=12, n_steps=5, topk=4, compiled=compiled), n_envs=5).solve(
                info, keys=KEYS
            )
            for compiled in (False, True)
        )
        assert torch.equal(eager["actions"], captured["actions"])
        assert torch.equal(eager["std"][0], captured["std"][0])
        assert (eager["costs"], eager["model_steps"]) == (captured["costs"], captured["model_steps"])
    info["target"][3] = np.nan
    with pytest.raises(NoFiniteCostError, match=r"rows \[3\].*iteration 0"):
        configured(kind(cost=TargetCost(), num_samples=12, topk=4, compiled=True), n_envs=5).solve(info)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [CEMSolver, ICEMSolver, MPPISolver])
def test_an_iteration_is_one_graph_that_depends_on_no_value(kind):
    """What CUDA can capture: tracing it as one graph fails where Python looks at the values of a tensor."""

    class Traced(kind):
        def _iterate(self, problem, state, step):
            return graph(self, problem, state, step), {}

    class Looking(LinearModelCost):
        def cost(self, info, candidates):
            return super().cost(info, candidates) * (2 if candidates.sum() > 0 else 1)

    torch._dynamo.reset()
    graph = torch.compile(
        lambda solver, problem, state, step: kind._iterate(solver, problem, state, step)[0],
        backend="eager",
        fullgraph=True,
    )
    info = {"state": np.random.default_rng(1).normal(size=(5, 1, 4))}
    settings = {"num_samples": 12, "n_steps": 4, "topk": 4, "batch_size": 5}
    plain = configured(kind(cost=LinearModelCost(), **settings), n_envs=5).solve(info, keys=KEYS)
    traced = configured(Traced(cost=LinearModelCost(), compiled=True, **settings), n_envs=5).solve(info, keys=KEYS)
    assert torch.equal(traced["actions"], plain["actions"])
    with pytest.raises(torch._dynamo.exc.Unsupported):
        configured(Traced(cost=Looking(), compiled=True, **settings), n_envs=5).solve(info, keys=KEYS)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("kind", [CEMSolver, ICEMSolver, MPPISolver])
def test_the_captured_loop_on_cuda_plans_as_the_eager_one(kind):
    info = {"state": np.random.default_rng(1).normal(size=(5, 1, 4))}
    eager, captured = (
        configured(
            kind(cost=LinearModelCost().cuda(), num_samples=64, n_steps=8, topk=8, device="cuda", compiled=compiled),
            n_envs=5,
        ).solve(info, keys=KEYS)
        for compiled in (False, True)
    )
    torch.testing.assert_close(captured["actions"], eager["actions"], rtol=1e-3, atol=1e-3)
    assert captured["model_steps"] == eager["model_steps"]


@pytest.mark.parametrize("name", ["cem", "gradient", "nevergrad"])
def test_chunks_are_halved_until_they_fit_into_memory(name):
    class Large(TargetCost):
        """Has memory for two envs."""

        memory = 2

        def get_cost(self, info, candidates):
            if len(candidates) > self.memory:
                raise torch.cuda.OutOfMemoryError("out of memory")
            return super().get_cost(info, candidates)

    info = target_info(5)
    recorder = BestCostRecorder(reduction="none")
    solver = configured(small(name)(Large(), callbacks=[recorder]), n_envs=5)
    result = solver.solve(info, keys=KEYS)
    whole = configured(small(name)(TargetCost()), n_envs=5).solve(info, keys=KEYS)
    torch.testing.assert_close(result["actions"], whole["actions"])
    assert [len(chunk[0]) for chunk in recorder.history] == [2, 2, 1]
    solver.cost.memory = 0
    with pytest.raises(torch.cuda.OutOfMemoryError):
        solver.solve(info, keys=KEYS)


class TestRandom:
    def test_it_needs_no_info_and_respects_bounds_and_given_actions(self):
        solver = configured(
            RandomSolver(seed=0), n_envs=4, block=2, bounds=(np.array([0.0, -3.0]), np.array([1.0, 2.0]))
        )
        result = solver.solve({}, init_action=torch.full((4, 1, 4), 0.5))
        assert "costs" not in result
        assert result["actions"].shape == (4, 3, 4)
        assert (result["actions"][:, 0] == 0.5).all()
        drawn = result["actions"][:, 1:].unflatten(2, (2, 2))
        assert drawn[..., 0].min() >= 0.0
        assert drawn[..., 1].min() < -1.0
        assert drawn[..., 1].max() <= 2.0

    @pytest.mark.parametrize("space", [gym.spaces.Discrete(5, start=3), gym.spaces.MultiDiscrete([2, 6])])
    def test_discrete_plans_are_integers_of_the_space(self, space):
        batched = gym.vector.utils.batch_space(space, 3)
        solver = RandomSolver(seed=0)
        solver.configure(action_space=batched, n_envs=3, config=PlanConfig(40, 1, action_block=2))
        actions = solver.solve({})["actions"]
        size = 1 if isinstance(space, gym.spaces.Discrete) else 2
        assert actions.shape == (3, 40, 2 * size)
        assert actions.dtype == torch.int64
        drawn = actions.numpy().reshape(-1, *space.shape).astype(space.dtype)
        assert all(space.contains(action if space.shape else int(action)) for action in drawn)
        assert len(np.unique(drawn.reshape(-1, size), axis=0)) == (5 if size == 1 else 12)


def test_early_names():
    assert GDSolver is GradientSolver
    env_space = gym.spaces.Box(-1, 1, (2,))
    planner = MPPI(IntegratorCost(), env_space, compile=False)
    assert (planner.horizon, planner.action_dim, planner.num_samples, planner.topk) == (3, 2, 512, 64)
    result = planner.solve({"state": np.full((1, 1, 2), 2.0, np.float32)})
    assert result["actions"].shape == (1, 3, 2)
    assert result["actions"].abs().max() <= 1.0
    assert result["costs"][0] < 8.0
