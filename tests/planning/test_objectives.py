import pytest
import torch

from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.planning import ControlPenalty, GoalMSE, Objective, WeightedSum


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
