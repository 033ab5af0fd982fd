"""Words of a command line become a typed run, or one clear sentence."""

import dataclasses

import pytest

from stable_worldmodel.errors import ContractError
from stable_worldmodel.train import TrainConfig
from stable_worldmodel.train.compose import checked, compose_run
from stable_worldmodel.train.presets import PRESETS


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("STABLEWM_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(("model", "preset"), [(model, preset) for model, rows in PRESETS.items() for preset in rows])
def test_without_more_words_a_run_is_its_preset(model, preset):
    run = compose_run([f"model={model}", f"preset={preset}", "data=a.h5"])
    assert run.config == TrainConfig.preset(preset, model)


def test_words_change_single_values():
    words = ["lr=1e-4", "model.latent_dim=8", "columns=[pixels]", "ema=0.99", "loggers=[csv]", "scalers.proprio=none"]
    config = compose_run(["data=a.h5", "preset=debug", *words]).config
    expected = TrainConfig.preset("debug", learning_rate=1e-4, columns=("pixels",), ema=0.99, loggers=("csv",))
    model = dataclasses.replace(expected.model, latent_dim=8)
    assert config == dataclasses.replace(expected, model=model, scalers={"proprio": "none"})


def test_a_value_may_be_taken_away():
    assert compose_run(["data=a.h5", "preset=debug", "max_steps=null"]).config.max_steps is None


def test_entries_of_a_dict_of_the_model_may_be_new():
    run = compose_run(["model=tdmpc2", "data=a.h5", "model.images=[]", "model.inputs.proprio=4"])
    assert (run.config.model.images, run.config.model.inputs) == ([], {"proprio": 4})


def test_early_names_work():
    assert compose_run(["model=dinowm", "data=a.h5"]).config.model.model_type == "prejepa"


def test_paths_need_no_quotes():
    path = "/data/rooms, of = 'all' $sizes (1).h5"
    assert compose_run([f"data={path}", f"out={path}"]).data == path


def test_equal_runs_have_equal_folders_and_others_have_others(home):
    def folder(*words):
        return compose_run(["model=lewm", "preset=debug", "data=some/rooms.h5", *words]).out

    assert folder() == home / "checkpoints" / "lewm_debug_rooms"
    assert (
        folder("seed=1", "lr=0.1")
        == folder("lr=0.1", "seed=1")
        == folder().with_name("lewm_debug_rooms_learning_rate=0.1_seed=1")
    )
    assert folder("learning_rate=1e-3", "save_every=9") == folder()  # the preset's, and no part of the result
    assert folder("name=mine") == home / "checkpoints" / "mine"
    long = [f"model.{name}=7" for name in ("latent_dim", "encoder_mlp", "predictor_width", "predictor_mlp", "window")]
    assert len(folder(*long, "epochs=77", "batch_size=77", "learning_rate=77", "weight_decay=77").name) <= 120


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("learning_rat=1", r"unknown key 'learning_rat'; did you mean 'learning_rate'\?"),
        ("latent_dim=1", r"unknown key 'latent_dim'; did you mean 'model.latent_dim'\?"),
        ("model.latentdim=1", r"did you mean 'model.latent_dim'\?"),
        ("xyzzy=1", r"unknown key 'xyzzy': expected model.KEY or one of .*'batch_size'"),
        ("model.inputs.x=1", "unknown key 'model.inputs.x'"),  # LeWM has no inputs
        ("epochs=many", "epochs=many.*'many'"),
        ("epochs=0", "epochs=0: expected an integer >= 1"),
        ("seed=1,2", "several values for one key; use python -m stable_worldmodel.train --multirun"),
        ("~seed", "can be changed, not removed"),
        ("seed", "expected KEY=VALUE"),
        ("hydra.run.dir=elsewhere", "unknown key 'hydra.run.dir'"),
        ("preset=huge", "preset 'huge' of lewm: expected one of"),
        ("model._target_=os.system", "_target_ has no meaning here"),
        ("+_target_=os.system", "_target_ has no meaning here"),
        ("scalers={_target_: os.system}", "_target_ has no meaning here"),
    ],
)
def test_other_words_are_refused(word, message):
    with pytest.raises(ContractError, match=message):
        compose_run(["model=lewm", "data=a.h5", word] if not word.startswith("preset") else ["data=a.h5", word])


def test_unknown_models_name_the_known_ones():
    with pytest.raises(ContractError, match=r"unknown model 'lemw': expected one of .*'lewm'"):
        compose_run(["model=lemw", "data=a.h5"])


def test_a_run_needs_data():
    with pytest.raises(ContractError, match="expected data=PATH"):
        compose_run(["model=lewm"])


def test_sweeps_may_have_several_values_and_keys_of_hydra():
    words = ["model=lewm,pldm", "seed=range(3)", "hydra/launcher=basic", "hydra.sweep.dir=x", "lr=1,2"]
    assert checked(words, sweeps=True) == [*words[:-1], "learning_rate=1,2"]
    with pytest.raises(ContractError, match="unknown model 'lemw'"):
        checked(["model=lewm,lemw"], sweeps=True)
