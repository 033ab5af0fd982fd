"""Costs by name: where checkpoints are found, and what is never unpickled by accident."""

import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from stable_worldmodel.errors import ContractError, NotFoundError
from stable_worldmodel.policy import AutoCostModel
from stable_worldmodel.wm import LeWM, LeWMConfig, save_pretrained
from stable_worldmodel.wm.registry import MODELS, ModelEntry


@dataclass(frozen=True)
class ScorerConfig:
    width: int = 3
    model_type: ClassVar[str] = "scorer"


class Scorer(nn.Module):
    """A registered model whose cost sits below it."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.trunk = nn.Linear(2, 2)
        self.heads = nn.Sequential(Head(config.width), Head(config.width))


class Head(nn.Module):
    def __init__(self, width=1):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width))
        self.drop = nn.Dropout(0.5)

    def get_cost(self, info, candidates):
        return candidates.sum(dim=(2, 3)) * self.weight.sum()


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "scorer", ModelEntry(__name__, "Scorer", "ScorerConfig"))
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    return home


class TestCheckpoints:
    def test_are_found_by_run_name_or_path_and_give_the_first_cost(self, home):
        model = Scorer(ScorerConfig())
        folder = save_pretrained(model, home / "checkpoints" / "runs" / "best")
        for name in ("runs/best", folder, str(folder)):
            cost = AutoCostModel(name)
            assert isinstance(cost, Head)
            assert torch.equal(cost.weight, model.heads[0].weight)
            assert not cost.training
            assert not cost.drop.training

    def test_of_a_training_run_are_found_by_its_folder(self, home, tmp_path):
        save_pretrained(Scorer(ScorerConfig()), tmp_path / "runs" / "lewm" / "checkpoint")
        assert isinstance(AutoCostModel("runs/lewm"), Head)  # below the working directory

    def test_may_live_under_another_root(self, home, tmp_path):
        save_pretrained(Scorer(ScorerConfig()), tmp_path / "elsewhere" / "checkpoints" / "best")
        assert isinstance(AutoCostModel("best", cache_dir=tmp_path / "elsewhere"), Head)
        with pytest.raises(NotFoundError):
            AutoCostModel("best")

    def test_win_over_pickles_of_the_same_name(self, home):
        save_pretrained(Scorer(ScorerConfig()), home / "checkpoints" / "best")
        torch.save(nn.Linear(1, 1), home / "best_object.ckpt")
        assert isinstance(AutoCostModel("best"), Head)

    def test_of_world_models_without_a_cost_name_the_remedy(self, home):
        model = LeWM(LeWMConfig.preset("tiny", image_size=32, action_dim=4))
        save_pretrained(model, home / "checkpoints" / "lewm")
        with pytest.raises(RuntimeError, match=r"LeWM in .* has get_cost; .*ShootingCostEvaluator"):
            AutoCostModel("lewm")

    def test_that_are_broken_say_so(self, home):
        folder = save_pretrained(Scorer(ScorerConfig()), home / "checkpoints" / "best")
        (folder / "weights.safetensors").write_bytes(b"nothing")
        with pytest.raises(ContractError, match="hash"):
            AutoCostModel("best")


class TestPickles:
    @pytest.mark.parametrize("file", ["early_object.ckpt", "early_weights.ckpt", "early_weights_epoch_3.ckpt"])
    def test_are_read_only_when_trusted_and_a_notice_is_logged(self, home, caplog, file):
        torch.save(nn.ModuleDict({"a": nn.Linear(1, 1), "b": Head()}), home / file)
        with pytest.raises(RuntimeError, match=rf"{file} is a pickled module.*trust_pickle=True"):
            AutoCostModel("early")
        with caplog.at_level(logging.WARNING):
            cost = AutoCostModel("early", trust_pickle=True)
        assert file in caplog.text
        assert isinstance(cost, Head)
        assert not cost.drop.training

    def test_that_are_not_trusted_run_no_code(self, home, tmp_path):
        torch.save(Bomb(tmp_path / "exploded"), home / "evil_object.ckpt")
        with pytest.raises(RuntimeError, match="trust_pickle"):
            AutoCostModel("evil")
        assert not (tmp_path / "exploded").exists()

    def test_whole_modules_come_before_weights_and_names_are_exact(self, home):
        torch.save(Head(3), home / "a_object.ckpt")
        torch.save({}, home / "a_weights.ckpt")
        torch.save(Head(5), home / "a_b_object.ckpt")
        assert len(AutoCostModel("a", trust_pickle=True).weight) == 3
        assert len(AutoCostModel("a_b", trust_pickle=True).weight) == 5
        assert len(AutoCostModel(home / "a_b_object.ckpt", trust_pickle=True).weight) == 5
        with pytest.raises(NotFoundError):
            AutoCostModel("[ab]", trust_pickle=True)

    def test_the_newest_of_a_folder_is_taken(self, home):
        (home / "run").mkdir()
        for age, width in ((100, 2), (50, 3), (200, 4)):
            file = home / "run" / f"epoch_{width}_object.ckpt"
            torch.save(Head(width), file)
            os.utime(file, (1e9 - age, 1e9 - age))
        assert len(AutoCostModel("run", trust_pickle=True).weight) == 3

    def test_of_a_model_that_is_itself_the_cost_give_the_outermost(self, home):
        outer = Head()
        outer.inner = Head()
        torch.save(outer, home / "nested_object.ckpt")
        assert hasattr(AutoCostModel("nested", trust_pickle=True), "inner")

    def test_that_hold_no_module_say_what_to_do(self, home):
        torch.save(Head().state_dict(), home / "state_weights.ckpt")
        with pytest.raises(RuntimeError, match=r"OrderedDict, not a module; .*save_pretrained"):
            AutoCostModel("state", trust_pickle=True)
        (home / "text_object.ckpt").write_text("hello")
        with pytest.raises(RuntimeError, match=r"torch\.save"):
            AutoCostModel("text", trust_pickle=True)

    def test_whose_code_is_gone_say_so(self, home, monkeypatch):
        gone = type("Gone", (Head,), {"__module__": __name__, "__qualname__": "Gone"})
        monkeypatch.setitem(globals(), "Gone", gone)
        torch.save(gone(), home / "gone_object.ckpt")
        monkeypatch.delitem(globals(), "Gone")
        with pytest.raises(RuntimeError, match="needs the code it was saved with"):
            AutoCostModel("gone", trust_pickle=True)


class Bomb:
    """Creates a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("name", ["nothing", "../nothing", "/nowhere/at/all"])
def test_what_does_not_exist_is_named_with_the_places_tried(home, name):
    with pytest.raises(NotFoundError, match=rf"(?s)'{name}' was not found; looked for .*{name}"):
        AutoCostModel(name)


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name_is_refused(home, name):
    with pytest.raises(ContractError, match="expected a name"):
        AutoCostModel(name)


def test_importing_policies_by_name_leaves_torch_out():
    code = "import sys, stable_worldmodel.policy as p; 'AutoCostModel' in dir(p); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
