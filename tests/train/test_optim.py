"""Optimisers against their formulas, schedules at their corners, and the average of weights."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from stable_worldmodel.train import TrainConfig
from stable_worldmodel.train.average import WeightAverage
from stable_worldmodel.train.optim import LaProp, build_optimizer, clipped, learning_rate
from stable_worldmodel.wm.registry import build_model, preset_config


def weights_after(gradients, start=1.0, **options):
    w = nn.Parameter(torch.tensor([start], dtype=torch.float64))
    optimizer = LaProp([w], **options)
    for gradient in gradients:
        w.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
    return w.item()


def test_laprop_steps_by_the_learning_rate_while_the_gradient_stays_the_same():
    # v / (1 - b2^t) is g^2 and m / (1 - b1^t) is g / |g|, whatever the betas.
    assert weights_after([0.3] * 7, lr=0.01, clip=0.0) == pytest.approx(1 - 7 * 0.01)


def test_laprop_follows_its_formula():
    gradients, lr, decay, (b1, b2) = [0.5, -2.0, 0.1, 3.0], 0.02, 0.1, (0.8, 0.95)
    w, v, m = 1.0, 0.0, 0.0
    for t, g in enumerate(gradients, start=1):
        v = b2 * v + (1 - b2) * g * g
        m = b1 * m + (1 - b1) * g / (math.sqrt(v / (1 - b2**t)) + 1e-20)
        w -= lr * (m / (1 - b1**t) + decay * w)
    found = weights_after(gradients, lr=lr, betas=(b1, b2), weight_decay=decay, clip=0.0)
    assert found == pytest.approx(w, rel=1e-9)


def test_laprop_leaves_weights_without_gradient_and_survives_zero():
    assert weights_after([0.0, 0.0]) == 1.0


def test_gradients_are_clipped_to_a_share_of_the_weight():
    weight, gradient = torch.full((4,), 2.0), torch.full((4,), 10.0)  # norms 4 and 20
    assert clipped(weight, gradient, 0.3).norm().item() == pytest.approx(1.2)
    assert torch.equal(clipped(weight, 0.1 * gradient / 2, 0.3), 0.05 * gradient)
    assert clipped(torch.zeros(4), gradient, 0.3).norm().item() == pytest.approx(3e-4)


def test_parameter_groups_reach_the_optimizer():
    model = build_model(preset_config("tdmpc2", "debug"))
    optimizer = build_optimizer(TrainConfig.preset("debug", "tdmpc2"), model)
    assert [(group["lr_scale"], group["eps"]) for group in optimizer.param_groups] == [
        (0.3, 1e-8),
        (1.0, 1e-8),
        (1.0, 1e-5),
    ]
    assert isinstance(build_optimizer(TrainConfig.preset("debug", "dreamer"), model), LaProp)


def test_cosine_rises_from_zero_and_falls_to_zero():
    config = TrainConfig(learning_rate=2.0, warmup=0.1)
    rates = [learning_rate(config, step, 100) for step in range(101)]
    np.testing.assert_allclose(rates[:11], np.linspace(0, 2, 11))
    assert rates[55] == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0.0)


def test_constant_schedule_stays_after_so_many_steps():
    config = TrainConfig(learning_rate=2.0, warmup=4, schedule="constant")
    assert [learning_rate(config, step, 1000) for step in (1, 2, 4, 5, 1000)] == [0.5, 1.0, 2.0, 2.0, 2.0]


def test_average_of_constant_weights_is_these_weights_and_of_others_lags_behind():
    model = nn.Linear(1, 1)
    average = WeightAverage(model, 0.9)
    with torch.no_grad():
        for step in range(1, 200):
            model.weight.fill_(float(step))
            average.update(model, step)
    # Of a line with slope 1, an average with decay d lags d / (1 - d) behind.
    assert average.tensors["weight"].item() == pytest.approx(199 - 9, abs=1e-2)
    torch.testing.assert_close(average.tensors["bias"], model.bias.detach())


def test_average_is_in_place_of_the_weights_only_for_a_while():
    model = nn.BatchNorm1d(2)
    average = WeightAverage(model, 0.5)
    with torch.no_grad():
        model.weight.fill_(3.0)
        model.num_batches_tracked.fill_(7)
    average.update(model, 1)
    with average.applied(model):
        assert model.weight[0].item() == pytest.approx(3 - 2 * 2 / 11)  # early decays are smaller
        assert model.num_batches_tracked == 7
    assert model.weight[0] == 3.0
