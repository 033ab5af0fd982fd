import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stable_worldmodel.errors import ContractError
from stable_worldmodel.policy import PlanConfig
from stable_worldmodel.solver import CategoricalCEMSolver, PGDSolver, Solver
from stable_worldmodel.solver.cat_cem import CategoricalCEMSolver as EarlyName
from stable_worldmodel.solver.discrete import Categories
from stable_worldmodel.solver.pgd import project_to_simplex
from stable_worldmodel.solver.problem import NoFiniteCostError


class TableCost:
    """Minus the value of every choice, from `info["value"]` (n, H, A); differentiable."""

    def __init__(self):
        self.seen = []

    def get_cost(self, info, candidates):
        self.seen.append(candidates.detach().clone())
        return -(candidates * info["value"][:, None].to(candidates)).sum(dim=(2, 3))


SPACES = {
    "discrete": gym.spaces.Discrete(5),
    "from three": gym.spaces.Discrete(4, start=3),
    "multi": gym.spaces.MultiDiscrete([2, 5, 3]),
}
SOLVERS = {
    "cem": lambda cost, **k: CategoricalCEMSolver(cost=cost, num_samples=600, topk=40, n_steps=20, **k),
    "pgd": lambda cost, **k: PGDSolver(cost=cost, n_steps=25, num_samples=3, **k),
}


def configured(solver, space, n=3, horizon=4, block=2):
    batched = gym.vector.utils.batch_space(space, n)
    solver.configure(action_space=batched, n_envs=n, config=PlanConfig(horizon, 1, action_block=block))
    return solver


def sizes_of(space):
    return [int(space.n)] if isinstance(space, gym.spaces.Discrete) else space.nvec.tolist()


def problem(space, n=3, horizon=4, block=2, seed=0):
    """Values of all choices, and the best ones as the env counts them (n, H, V)."""
    sizes = sizes_of(space) * block
    value = np.random.default_rng(seed).permuted(np.arange(n * horizon * sum(sizes)) / 50.0).reshape(n, horizon, -1)
    start = int(getattr(space, "start", 0)) if isinstance(space, gym.spaces.Discrete) else 0
    blocks = np.split(value, np.cumsum(sizes)[:-1], axis=2)
    return {"value": value}, start + np.stack([block.argmax(axis=2) for block in blocks], axis=2)


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("name", SOLVERS)
def test_the_best_choices_are_found(name, kind):
    space = SPACES[kind]
    solver = configured(SOLVERS[name](TableCost()), space)
    info, best = problem(space)
    result = solver.solve(info)
    np.testing.assert_array_equal(result["actions"], best)
    assert result["actions"].dtype == torch.int64
    assert isinstance(solver, Solver)
    assert solver.action_dim == 2 * sum(sizes_of(space))
    value = torch.from_numpy(info["value"])
    own = -(one_hot(result["actions"], space) * value).sum(dim=(1, 2))
    assert result["costs"] == pytest.approx(own.tolist(), rel=1e-5)


def one_hot(actions, space):
    categories = Categories.of(gym.vector.utils.batch_space(space, 3), 3, 2)
    return categories.flat(categories.one_hot(categories.choices(actions), torch.float64))


@pytest.mark.parametrize("name", SOLVERS)
def test_plans_do_not_depend_on_the_envs_beside_them(name):
    space = SPACES["multi"]
    info, _ = problem(space, n=4)
    keys = np.arange(8).reshape(4, 2)
    weak = {"cem": lambda c: CategoricalCEMSolver(cost=c, num_samples=6, topk=2, n_steps=2), "pgd": SOLVERS["pgd"]}[
        name
    ]
    together = configured(weak(TableCost()), space, n=4).solve(info, keys=keys)["actions"]
    for i in (3, 1):
        alone = configured(weak(TableCost()), space, n=4).solve(
            {"value": info["value"][i : i + 1]}, keys=keys[i : i + 1]
        )
        assert torch.equal(alone["actions"][0], together[i])


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("space", [gym.spaces.Box(-1, 1, (3, 2)), gym.spaces.MultiBinary(3)])
def test_other_spaces_are_refused(name, space):
    with pytest.raises(ContractError, match="expected Discrete or MultiDiscrete"):
        SOLVERS[name](TableCost()).configure(action_space=space, n_envs=3, config=PlanConfig(2, 1))


@pytest.mark.parametrize("name", SOLVERS)
def test_nan_costs_are_an_error_that_names_the_env(name):
    info, _ = problem(SPACES["discrete"])
    info["value"][2] = np.nan
    with pytest.raises(NoFiniteCostError, match=r"rows \[2\]"):
        configured(SOLVERS[name](TableCost()), SPACES["discrete"]).solve(info)


class TestCategoricalCEM:
    @pytest.mark.parametrize("smoothing", [0.0, 0.5])
    def test_probabilities_are_those_of_the_existing_choices(self, smoothing):
        space = SPACES["multi"]
        solver = CategoricalCEMSolver(cost=TableCost(), num_samples=20, topk=3, n_steps=2, smoothing=smoothing)
        probs = configured(solver, space).solve(problem(space)[0])["probs"][0]
        assert probs.shape == (3, 4, 6, 5)
        torch.testing.assert_close(probs.sum(dim=-1), torch.ones(3, 4, 6))
        exists = torch.arange(5) < torch.tensor([2, 5, 3] * 2)[:, None]
        assert (probs[..., ~exists] == 0).all()
        if smoothing:
            assert (probs[..., exists] > 0.05).all()

    def test_old_probabilities_keep_their_share(self):
        space = SPACES["discrete"]
        solver = CategoricalCEMSolver(cost=TableCost(), num_samples=30, topk=1, n_steps=1, alpha=0.5)
        probs = configured(solver, space).solve(problem(space)[0])["probs"][0]
        torch.testing.assert_close(probs.sort(dim=-1).values[..., :4], torch.full((3, 4, 2, 4), 0.1))

    def test_candidates_are_one_hot_and_the_first_is_the_most_probable(self):
        space, cost = SPACES["multi"], TableCost()
        result = configured(CategoricalCEMSolver(cost=cost, num_samples=9, topk=2, n_steps=4), space).solve(
            problem(space)[0]
        )
        for seen in cost.seen:
            for block in seen.split([2, 5, 3] * 2, dim=-1):
                assert set(block.unique().tolist()) <= {0.0, 1.0}
                assert (block.sum(dim=-1) == 1).all()
        assert torch.equal(cost.seen[-1][:, 0].double(), one_hot(result["actions"], space))

    def test_a_warm_start_is_the_first_candidate_and_most_samples_follow_it(self):
        space, cost = SPACES["from three"], TableCost()
        start = torch.full((3, 2, 2), 5)
        solver = CategoricalCEMSolver(cost=cost, num_samples=200, topk=10, n_steps=1)
        configured(solver, space).solve(problem(space)[0], init_action=start)
        chosen = cost.seen[0][:, :, :2].unflatten(-1, (2, 4)).argmax(dim=-1) + 3
        assert (chosen[:, 0] == 5).all()
        assert 0.93 < (chosen == 5).double().mean() < 0.99  # 1 - 0.05 * 3 / 4
        with pytest.raises(ContractError, match="outside"):
            configured(solver, space).solve(problem(space)[0], init_action=torch.zeros(3, 1, 2))
        with pytest.raises(ContractError, match="init_action"):
            configured(solver, space).solve(problem(space)[0], init_action=torch.full((3, 5, 2), 5))

    def test_the_best_sequence_seen_may_be_returned(self):
        space, cost = SPACES["discrete"], TableCost()
        solver = CategoricalCEMSolver(cost=cost, num_samples=9, topk=9, n_steps=3, return_mean=False)
        info, _ = problem(space)
        result = configured(solver, space).solve(info)
        values = torch.from_numpy(info["value"])[:, None]
        lowest = torch.stack([-(seen * values).sum(dim=(2, 3)).amax(dim=1) for seen in cost.seen]).amin(dim=0)
        assert result["costs"] == pytest.approx(lowest.tolist(), rel=1e-5)

    def test_bad_settings(self):
        for kwargs in ({"topk": 301}, {"n_steps": 0}, {"smoothing": -1.0}, {"alpha": 1.0}, {"warm_epsilon": 2.0}):
            with pytest.raises(ContractError):
                CategoricalCEMSolver(cost=TableCost(), **kwargs)
        assert EarlyName is CategoricalCEMSolver


class TestPGD:
    @pytest.mark.parametrize("kind", SPACES)
    def test_every_iterate_lies_on_the_simplex(self, kind):
        cost = TableCost()
        configured(PGDSolver(cost=cost, n_steps=5, num_samples=4, action_noise=0.3), SPACES[kind]).solve(
            problem(SPACES[kind])[0]
        )
        for seen in cost.seen:
            assert (seen >= 0).all()
            for block in seen.split(sizes_of(SPACES[kind]) * 2, dim=-1):
                torch.testing.assert_close(block.sum(dim=-1), torch.ones(block.shape[:-1]), rtol=0.0, atol=1e-5)

    def test_warm_starts_are_integers_or_points(self):
        cost, space = TableCost(), SPACES["discrete"]
        start = torch.tensor([1, 2]).expand(3, 1, 2)
        info, _ = problem(space)
        configured(PGDSolver(cost=cost, n_steps=1), space).solve(info, init_action=start)
        first = cost.seen[0][:, 0].unflatten(-1, (2, 5))
        assert torch.equal(first[:, 0].argmax(dim=-1), start[:, 0])
        assert (first[:, 0].amax(dim=-1) == 1.0).all()
        torch.testing.assert_close(first[:, 1:], torch.full((3, 3, 2, 5), 0.2))
        points = torch.tensor([0.5, 0.5, 0, 0, 0, 0.1, 0.2, 0.3, 0.4, 0]).expand(3, 1, 10)
        cost.seen.clear()
        configured(PGDSolver(cost=cost, n_steps=1, from_scalar=False), space).solve(info, init_action=points)
        torch.testing.assert_close(cost.seen[0][:, 0, 0], points[:, 0])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=6), st.integers(0, 3))
def test_projection_is_the_nearest_point_of_the_simplex(values, padding):
    point = torch.tensor([*values, *[9.0] * padding], dtype=torch.float64)
    mask = torch.tensor([[True] * len(values) + [False] * padding])
    projected = project_to_simplex(point[None], mask)[0]
    assert (projected >= 0).all()
    assert projected.sum().item() == pytest.approx(1.0)
    assert (projected[len(values) :] == 0).all()
    # Optimality: the gap is the same wherever the projection is positive, and not smaller elsewhere.
    gap = (point - projected)[: len(values)]
    positive = projected[: len(values)] > 0
    torch.testing.assert_close(gap[positive], gap[positive].amax().expand(int(positive.sum())))
    assert (gap[~positive] <= gap[positive].amax() + 1e-9).all()


def test_categories_of_batched_and_single_spaces():
    batch = gym.vector.utils.batch_space
    multi = gym.spaces.MultiDiscrete([2, 5], start=[1, -2])
    for space in (multi, batch(multi, 3)):
        assert Categories.of(space, 3, 2) == Categories((2, 5, 2, 5), (1, -2, 1, -2))
    for space in (gym.spaces.Discrete(4, start=1), batch(gym.spaces.Discrete(4, start=1), 3)):
        assert Categories.of(space, 3, 1) == Categories((4,), (1,))
