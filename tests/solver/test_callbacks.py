import gymnasium as gym
import numpy as np
import pytest
import torch
from quadratic import TargetCost

from stable_worldmodel.errors import ContractError
from stable_worldmodel.planning.solver import callbacks as newest
from stable_worldmodel.policy import PlanConfig
from stable_worldmodel.solver import CategoricalCEMSolver, CEMSolver, GradientSolver, ICEMSolver, MPPISolver
from stable_worldmodel.solver.callbacks import (
    ActionNormRecorder,
    BestCostRecorder,
    Callback,
    EliteCostRecorder,
    EliteSpreadRecorder,
    GradNormRecorder,
    MeanCostRecorder,
    MeanShiftRecorder,
    VarNormRecorder,
)


class Keep(Callback):
    """Remembers every state."""

    def reset(self):
        super().reset()
        self.states = []

    def compute(self, **state):
        self.states.append({k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in state.items()})
        return state["step"]


def run(solver, n=3, space=None, bounds=None):
    space = gym.spaces.Box(-1, 1, (n, 2)) if space is None else space
    solver.configure(action_space=space, n_envs=n, config=PlanConfig(3, 1), action_bounds=bounds)
    width = solver.action_dim
    target = np.random.default_rng(0).uniform(-0.8, 0.8, (n, 3, width)).astype(np.float32)
    return solver.solve({"target": target})


def cem(kind=CEMSolver, **kwargs):
    return kind(cost=TargetCost(), num_samples=12, n_steps=4, topk=3, **kwargs)


SAMPLING_KEYS = {"step", "candidates", "costs", "topk_vals", "topk_inds", "topk_candidates"}
SAMPLING_KEYS |= {"mean", "var", "prev_mean", "prev_var"}


@pytest.mark.parametrize("kind", [CEMSolver, ICEMSolver, MPPISolver])
def test_state_of_sampling_solvers(kind):
    keep = Keep()
    run(cem(kind, callbacks=[keep]), bounds=(np.full(2, -0.5), np.full(2, 0.5)))
    assert [state["step"] for state in keep.states] == [0, 1, 2, 3]
    for earlier, state in zip([None, *keep.states], keep.states, strict=False):
        assert set(state) == SAMPLING_KEYS | {"action_low", "action_high"}
        assert state["candidates"].shape == (3, 12, 3, 2)
        assert state["costs"].shape == (3, 12)
        picked = state["candidates"].take_along_dim(state["topk_inds"][:, :, None, None], dim=1)
        assert torch.equal(picked, state["topk_candidates"])
        assert torch.equal(state["costs"].sort(dim=1).values[:, :3], state["topk_vals"])
        if earlier:
            assert torch.equal(earlier["mean"], state["prev_mean"])
            assert torch.equal(earlier["var"], state["prev_var"])
    assert (keep.states[0]["action_low"] == -0.5).all()


def test_state_of_the_gradient_family():
    keep = Keep()
    run(GradientSolver(cost=TargetCost(), n_steps=2, num_samples=4, callbacks=[keep]))
    for state in keep.states:
        assert set(state) == {"step", "params", "cost", "costs"}
        assert state["params"].shape == (3, 4, 3, 2)
        assert state["cost"] == state["costs"].sum()


def test_state_of_categorical_cem():
    keep = Keep()
    solver = CategoricalCEMSolver(cost=TargetCost(), num_samples=12, n_steps=3, topk=3, callbacks=[keep])
    run(solver, space=gym.spaces.MultiDiscrete([4] * 3))
    assert set(keep.states[0]) == {*SAMPLING_KEYS - {"mean", "var", "prev_mean", "prev_var"}, "probs", "prev_probs"}
    assert keep.states[0]["topk_candidates"].shape == (3, 3, 3, 4)
    assert keep.states[0]["topk_candidates"].sum(dim=-1).eq(1).all()


def test_recorded_values():
    keep = Keep(name="keep")
    recorders = [kind(reduction="none") for kind in (BestCostRecorder, MeanCostRecorder, EliteCostRecorder)]
    recorders += [kind(reduction="none") for kind in (VarNormRecorder, MeanShiftRecorder, EliteSpreadRecorder)]
    histories = run(cem(callbacks=[keep, *recorders]))["callbacks"]
    for step, state in enumerate(keep.states):
        elites = state["topk_candidates"].flatten(2)
        spread = (elites - elites.mean(1, keepdim=True)).square().sum(2).mean(1).sqrt()
        expected = {
            "BestCostRecorder": state["costs"].min(dim=1).values,
            "MeanCostRecorder": state["costs"].mean(dim=1),
            "VarNormRecorder": state["var"].flatten(1).norm(dim=1),
            "EliteSpreadRecorder": spread,
        }
        for key, value in expected.items():
            np.testing.assert_allclose(histories[key][0][step], value, rtol=1e-5)
        elite_costs = histories["EliteCostRecorder"][0][step]
        np.testing.assert_allclose(elite_costs["min"], state["topk_vals"][:, 0], rtol=1e-6)
        np.testing.assert_allclose(elite_costs["max"], state["topk_vals"][:, -1], rtol=1e-6)
        np.testing.assert_allclose(elite_costs["mean"], state["topk_vals"].mean(dim=1), rtol=1e-6)
        shift = histories["MeanShiftRecorder"][0][step]
        if step == 0:
            assert shift is None
        else:
            np.testing.assert_allclose(shift, (state["mean"] - state["prev_mean"]).flatten(1).norm(dim=1), rtol=1e-5)


def test_gradient_recorders():
    class Halt(TargetCost):
        def get_cost(self, info, candidates):
            return super().get_cost(info, candidates) * 0.5

    recorders = [GradNormRecorder(reduction="none"), GradNormRecorder(True, "none", "steps"), ActionNormRecorder()]
    solver = GradientSolver(cost=Halt(), n_steps=3, optimizer_kwargs={"lr": 0.5}, callbacks=recorders)
    solver.configure(action_space=gym.spaces.Box(-1, 1, (1, 2)), n_envs=1, config=PlanConfig(3, 1))
    histories = solver.solve({"target": np.ones((1, 3, 2), np.float32)})["callbacks"]
    # x - 1 halves in every step, from -1
    np.testing.assert_allclose(histories["GradNormRecorder"][0], [[6**0.5], [6**0.5 / 2], [6**0.5 / 4]], rtol=1e-5)
    np.testing.assert_allclose(histories["steps"][0][0], [[2**0.5] * 3], rtol=1e-5)
    np.testing.assert_allclose(histories["ActionNormRecorder"][0], np.array([0.5, 0.75, 0.875]) * 6**0.5, rtol=1e-5)


def test_without_a_gradient_its_norm_is_zero():
    assert GradNormRecorder().compute(params=torch.ones(2, 3, 4, 5)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("reduction", "expected"), [("mean", 2.0), ("sum", 6.0), ("none", [1.0, 2.0, 3.0])])
def test_reduction_over_the_envs(reduction, expected):
    recorder = BestCostRecorder(reduction, name="best")
    recorder.reset(), recorder.start_batch()
    recorder(costs=torch.tensor([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]]))
    recorder.end_solve()
    assert recorder.history == [[expected]]
    assert recorder.output_key == "best"


def test_history_is_a_list_over_chunks_of_lists_over_iterations_and_of_the_last_solve_only():
    recorder = BestCostRecorder()
    solver = cem(callbacks=[recorder], batch_size=2)
    for _ in range(2):
        history = run(solver)["callbacks"]["BestCostRecorder"]
        assert [len(chunk) for chunk in history] == [4, 4]
        assert history == recorder.history
        assert all(isinstance(value, float) for chunk in history for value in chunk)


def test_errors_and_names():
    with pytest.raises(ContractError, match="reduction"):
        BestCostRecorder("median")
    with pytest.raises(NotImplementedError, match="compute"):
        Callback().compute()
    with pytest.raises(ContractError, match="distinct"):
        run(cem(callbacks=[BestCostRecorder(), BestCostRecorder()]))
    with pytest.raises(ContractError, match="captured"):
        cem(callbacks=[BestCostRecorder()], compiled=True)
    assert newest.BestCostRecorder is BestCostRecorder
