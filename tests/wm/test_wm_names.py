"""Early names, the hub, and runs by name."""

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from stable_worldmodel import wm
from stable_worldmodel.errors import ContractError, MissingDependencyError, NotFoundError
from stable_worldmodel.wm import LeWM, LeWMConfig, hub, load_pretrained, push_to_hub, save_pretrained
from stable_worldmodel.wm import utils as wm_utils
from stable_worldmodel.wm.dummy import DummyWorldModel
from stable_worldmodel.wm.training import ParameterGroup, optimizer_groups

CONFIG = LeWMConfig.preset("debug", action_dim=2)


@pytest.mark.parametrize("name", wm.__all__)
def test_every_public_name_exists(name):
    assert getattr(wm, name) is not None


@torch.no_grad()
def test_dummy_has_its_early_interface():
    model = DummyWorldModel(image_shape=(3, 32, 32), action_dim=4)
    z = model.encode(torch.zeros(2, 1, 3, 32, 32, dtype=torch.uint8))
    assert z.shape == (2, 1, 10)
    assert model.predict(z[:, 0], torch.zeros(2, 4), timestep=3).shape == (2, 10)
    with pytest.raises(ContractError, match="image_shape"):
        DummyWorldModel((32, 32, 3), 4)


def test_runs_are_saved_and_loaded_by_name(tmp_path):
    model = LeWM(CONFIG)
    folder = wm_utils.save_pretrained(model, "mine", {"model": {"depth": 2}, "seed": 1}, "model", cache_dir=tmp_path)
    assert folder == tmp_path / "checkpoints" / "mine"
    assert wm_utils.load_pretrained("mine", cache_dir=tmp_path).config == CONFIG
    with pytest.raises(ContractError, match="expected a non-empty"):
        wm_utils.save_pretrained(model, "../mine", cache_dir=tmp_path)
    with pytest.raises(ContractError, match="config_key"):
        wm_utils.save_pretrained(model, "mine", {"model": {}}, "trainer", cache_dir=tmp_path)


# -- the hub ----------------------------------------------------------------------------------------------------------


class Hub:
    """A hub in a folder, with the calls that are made of it."""

    def __init__(self, folder):
        self.folder, self.calls = folder, []

    def snapshot_download(self, repo_id, **kwargs):
        self.calls.append((repo_id, kwargs["revision"]))
        if not (self.folder / repo_id).is_dir():
            raise OSError(f"404: {repo_id}")
        return str(self.folder / repo_id)

    def HfApi(self):
        return self

    def create_repo(self, repo_id, private, exist_ok):
        self.calls.append(("create", repo_id, private))
        (self.folder / repo_id).mkdir(parents=True, exist_ok=exist_ok)

    def create_branch(self, repo_id, branch, exist_ok):
        self.calls.append(("branch", branch))

    def upload_folder(self, repo_id, folder_path, revision, allow_patterns):
        for name in allow_patterns:
            shutil.copy(Path(folder_path, name), self.folder / repo_id / name)
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")


@pytest.fixture
def fake_hub(tmp_path, monkeypatch):
    made = Hub(tmp_path / "hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", made)
    monkeypatch.setenv("STABLEWM_HOME", str(tmp_path / "home"))
    return made


def test_hub_ids_are_downloaded_at_their_revision(fake_hub):
    save_pretrained(LeWM(CONFIG), fake_hub.folder / "someone" / "model")
    assert load_pretrained("someone/model", revision="v1").config == CONFIG
    assert fake_hub.calls == [("someone/model", "v1")]


def test_local_runs_come_before_the_hub(fake_hub, tmp_path):
    save_pretrained(LeWM(CONFIG), tmp_path / "home" / "checkpoints" / "someone" / "model")
    assert load_pretrained("someone/model").config == CONFIG
    assert not fake_hub.calls


def test_what_is_nowhere_is_named(fake_hub):
    with pytest.raises(NotFoundError, match=r"neither a local checkpoint.*at v2.*404"):
        load_pretrained("someone/nothing", revision="v2")


def test_without_the_package_the_extra_is_named(fake_hub, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError, match=r"stable-worldmodel\[hub\]"):
        load_pretrained("someone/model")


def test_only_checkpoints_are_pushed(tmp_path):
    with pytest.raises(NotFoundError, match="save_pretrained"):
        push_to_hub(tmp_path, "someone/model")


def test_a_checkpoint_that_was_pushed_is_loaded_from_its_branch(fake_hub, tmp_path):
    model = LeWM(CONFIG)
    folder = save_pretrained(model, tmp_path / "run")
    (folder / "notes.txt").write_text("stay here")
    assert push_to_hub(folder, "me/model", revision="trained") == "https://hub/me/model/commit/1"
    assert fake_hub.calls == [("create", "me/model", True), ("branch", "trained")]
    assert not (fake_hub.folder / "me" / "model" / "notes.txt").exists()
    loaded = load_pretrained("me/model", revision="trained").state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", ["", " ", "a\0b"])
def test_names_that_name_nothing_are_refused(name):
    with pytest.raises(ContractError, match="expected a path"):
        hub.locate(name)


# -- parameter groups -------------------------------------------------------------------------------------------------


class Two(torch.nn.Module):
    def __init__(self, *patterns):
        super().__init__()
        self.a, self.b = torch.nn.Linear(1, 1), torch.nn.Parameter(torch.zeros(1))
        self.parameter_groups = tuple(ParameterGroup(pattern, lr_scale=0.5) for pattern in patterns)


def test_groups_take_parameters_by_their_full_names():
    groups = optimizer_groups(Two(r"a\.", "b"))
    assert [len(group["params"]) for group in groups] == [2, 1]
    assert len(optimizer_groups(torch.nn.Linear(1, 1))) == 1


@pytest.mark.parametrize(
    ("patterns", "match"),
    [
        ((r"a\.",), "parameter b belongs to the groups []"),
        ((r"a\.", "b", ""), "expected exactly one"),
        ((r"a\.", "b", "c"), "no trainable parameter matches"),
    ],
)
def test_groups_that_leave_out_or_match_nothing_are_refused(patterns, match):
    with pytest.raises(ContractError, match=match.replace("[", r"\[").replace("]", r"\]")):
        optimizer_groups(Two(*patterns))
