"""Every model has its three rows, and a row is a config."""

import dataclasses

import pytest

from stable_worldmodel.errors import ContractError
from stable_worldmodel.train import TrainConfig
from stable_worldmodel.train.presets import PRESETS
from stable_worldmodel.wm import LeWMConfig, preset_config
from stable_worldmodel.wm.registry import MODELS


def test_every_registered_model_has_a_row():
    assert PRESETS.keys() == MODELS.keys()


@pytest.mark.parametrize("name", ["debug", "small", "paper"])
@pytest.mark.parametrize("model", sorted(MODELS))
def test_every_model_has_the_three_presets(model, name):
    config = TrainConfig.preset(name, model)
    assert config.model.model_type == model
    assert (config.device == "cpu") == (name != "paper")


def test_lewm_is_trained_as_published_by_default():
    assert TrainConfig.preset("paper") == TrainConfig()
    assert TrainConfig.preset("small", epochs=7).epochs == 7


def test_published_numbers():
    tdmpc2, dreamer, gcbc = (TrainConfig.preset("paper", name) for name in ("tdmpc2", "dreamer", "gcbc"))
    assert (tdmpc2.learning_rate, tdmpc2.batch_size, tdmpc2.clip_norm) == (3e-4, 256, 20.0)
    assert (dreamer.learning_rate, dreamer.batch_size, dreamer.num_steps, dreamer.warmup) == (4e-5, 16, 64, 1000)
    assert (gcbc.learning_rate, gcbc.frameskip) == (1e-4, 1)


def test_a_model_config_may_stand_for_its_name():
    model = LeWMConfig.preset("debug", latent_dim=5)
    config = TrainConfig.preset("debug", model)
    assert config == dataclasses.replace(TrainConfig.preset("debug", "lewm"), model=model)


def test_early_names_have_the_presets_of_what_they_became():
    assert TrainConfig.preset("debug", "dinowm").model == preset_config("prejepa", "debug")


@pytest.mark.parametrize(
    ("arguments", "values", "message"),
    [
        (("huge",), {}, "preset 'huge' of lewm: expected one of"),
        (("debug", "dreamr"), {}, "unknown model 'dreamr'"),
        (("debug",), {"learning": 1}, "learning"),
        (("debug",), {"optimizer": "sgd"}, "optimizer='sgd': expected one of"),
        (("debug",), {"schedule": "steps"}, "schedule='steps'"),
        (("debug",), {"scalers": {"action": "log"}}, r"scalers\['action'\]='log'"),
        (("debug",), {"ema": 1.0}, "ema=1.0"),
        (("debug",), {"accumulate": 0}, "accumulate=0"),
        (("debug",), {"save_every": 0}, "save_every=0"),
    ],
)
def test_senseless_values_are_refused(arguments, values, message):
    with pytest.raises(ContractError, match=message):
        TrainConfig.preset(*arguments, **values)
