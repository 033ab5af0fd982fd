import pytest
import torch

from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.planning import (
    ActionSmoothness,
    AtMost,
    ControlPenalty,
    GoalMSE,
    Objective,
    PathMSE,
    WeightedSum,
)
from stable_worldmodel.planning.objectives import reads_last_only


def rolled_out(*latent_shape):
    torch.manual_seed(0)
    return {
        "predicted_emb": torch.randn(2, 3, 4, *latent_shape),
        "goal_emb": torch.randn(2, 2, *latent_shape, requires_grad=True),
        "action_candidates": torch.randn(2, 3, 5, 2, requires_grad=True),
    }


@pytest.mark.parametrize("latent_shape", [(6,), (5, 6)])
def test_goal_mse_compares_last_prediction_with_last_goal_frame(latent_shape):
    info = rolled_out(*latent_shape)
    error = (info["predicted_emb"][:, :, -1] - info["goal_emb"][:, None, -1]).square().flatten(2)
    torch.testing.assert_close(GoalMSE()(info), error.sum(-1))
    torch.testing.assert_close(GoalMSE(reduction="mean")(info), error.mean(-1))


def test_the_goal_receives_no_gradient():
    assert not GoalMSE()(rolled_out(6)).requires_grad


def test_low_precision_latents_are_compared_in_float32():
    info = {key: value.bfloat16() for key, value in rolled_out(6).items()}
    assert GoalMSE()(info).dtype == torch.float32


def test_control_penalty_is_the_sum_of_squares():
    info = rolled_out(6)
    torch.testing.assert_close(ControlPenalty()(info), info["action_candidates"].square().sum(dim=(2, 3)))


def test_weighted_sum_adds_its_terms():
    info = rolled_out(6)
    total = WeightedSum([(2.0, GoalMSE()), (0.5, ControlPenalty())])
    torch.testing.assert_close(total(info), 2 * GoalMSE()(info) + 0.5 * ControlPenalty()(info))
    assert isinstance(total, Objective)


def test_bad_arguments_say_what_is_expected():
    with pytest.raises(ContractError, match="'sum' or 'mean'"):
        GoalMSE(reduction="max")
    with pytest.raises(ContractError, match="at least one"):
        WeightedSum([])
    with pytest.raises(MissingKeyError, match="goal_emb"):
        GoalMSE()({"predicted_emb": torch.zeros(1, 1, 1, 1)})
    with pytest.raises(ContractError, match="goal_emb"):
        GoalMSE()({"predicted_emb": torch.zeros(1, 1, 1, 4), "goal_emb": torch.zeros(1, 1, 5)})


def test_path_mse_is_the_weighted_mean_over_the_planned_steps():
    info = rolled_out(6)
    info["predicted_emb"] = torch.randn(2, 3, 2 + 5, 6)  # two frames of context
    errors = (info["predicted_emb"][:, :, 2:] - info["goal_emb"][:, None, -1:]).square().sum(dim=3)
    torch.testing.assert_close(PathMSE()(info), errors.mean(dim=2))
    weights = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])
    torch.testing.assert_close(PathMSE(discount=2.0)(info), (errors * weights).sum(dim=2) / weights.sum())
    torch.testing.assert_close(PathMSE(reduction="mean")(info), errors.mean(dim=2) / 6)
    with pytest.raises(ContractError, match="discount"):
        PathMSE(discount=0.0)


def test_smoothness_compares_env_actions_across_macro_steps():
    actions = torch.randn(2, 3, 4, 6)
    info = {"action_candidates": actions}
    fine = actions.reshape(2, 3, 12, 2)
    torch.testing.assert_close(ActionSmoothness(2)(info), (fine[:, :, 1:] - fine[:, :, :-1]).square().sum(dim=(2, 3)))
    coarse = (actions[:, :, 1:] - actions[:, :, :-1]).square().sum(dim=(2, 3))
    torch.testing.assert_close(ActionSmoothness()(info), coarse)
    assert ActionSmoothness()({"action_candidates": torch.ones(1, 2, 1, 3)}).tolist() == [[0.0, 0.0]]
    with pytest.raises(ContractError, match="action_size=4"):
        ActionSmoothness(4)(info)


def test_at_most_is_negative_where_it_holds():
    info = {"action_candidates": torch.tensor([[[[1.0]], [[3.0]]]])}
    assert AtMost(ControlPenalty(), 4.0)(info).tolist() == [[-3.0, 5.0]]


def test_objectives_say_whether_the_last_prediction_is_enough():
    def custom(info):
        return info["predicted_emb"].sum(dim=(2, 3))

    last = [GoalMSE(), ControlPenalty(), ActionSmoothness(), AtMost(GoalMSE(), 1.0), WeightedSum([(1.0, GoalMSE())])]
    whole = [PathMSE(), custom, AtMost(custom, 1.0), WeightedSum([(1.0, GoalMSE()), (1.0, custom)])]
    assert all(map(reads_last_only, last))
    assert not any(map(reads_last_only, whole))
