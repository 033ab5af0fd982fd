"""Listing, describing and deleting what is in the data root."""

import json

import gymnasium as gym
import numpy as np
import pytest
from episode_factory import make_episode

from stable_worldmodel import data
from stable_worldmodel.data import HDF5Writer, dataset_info, list_datasets, list_models, world_info
from stable_worldmodel.data.lock import mark_dead
from stable_worldmodel.errors import ContractError, NotFoundError


@pytest.fixture
def root(monkeypatch, tmp_path):
    monkeypatch.setenv("STABLEWM_HOME", str(tmp_path / "root"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return data.get_cache_dir()


def record(path, **change):
    path.parent.mkdir(parents=True, exist_ok=True)
    with HDF5Writer(path, metadata={"env": "toy"}) as writer:
        for k in range(2):
            writer.write_episode(
                {**make_episode(k, rows=5 + k), **{key: value[: 5 + k] for key, value in change.items()}}
            )
    return path


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


# -- datasets ---------------------------------------------------------------------------------------------------------


def test_datasets_are_listed_by_the_name_that_opens_them(root):
    assert list_datasets() == []
    for name in ("b.h5", "a.hdf5", "datasets/c.h5", "v1.2.h5", "run/x.h5"):
        record(root / name)
    touch(root / "notes.txt", root / "x_object.ckpt", root / "checkpoints" / "r" / "weights.pt", root / ".hidden.h5")
    touch(root / "previews" / "b" / "ep0.mp4", root / "datasets" / "o--r.partial" / "x.h5", root / "b.h5.lock")
    assert list_datasets() == ["a", "b", "c", "run", "v1.2"]
    for name in list_datasets():
        assert data.load_dataset(name).num_episodes == 2


def test_names_of_datasets_keep_their_suffix_where_it_matters(root):
    record(root / "x.h5")
    record(root / "x.hdf5")
    record(root / "datasets" / "x.h5")  # hidden by the first
    assert list_datasets() == ["x", "x.hdf5"]
    assert data.delete_dataset("x")
    assert not (root / "x.h5").exists()
    assert list_datasets() == ["x", "x.h5"]  # the second lies in `datasets`
    assert data.load_dataset("x").path == root / "x.hdf5"


def test_side_tables_are_not_listed(root):
    for name in ("a.lance", "a_episodes.lance", "b_episodes.lance"):
        (root / name).mkdir()
    assert list_datasets() == ["a", "b_episodes"]


def test_info_describes_a_dataset(root):
    rows = 7
    record(
        root / "demo.h5",
        goal=np.zeros((rows, 8, 8, 3), np.uint8),
        **{"variation.agent.color": np.zeros((rows, 3), np.uint8), "variation.size": np.ones(rows)},
    )
    info = dataset_info("demo")
    assert info["name"] == "demo"
    assert (info["num_episodes"], info["num_steps"]) == (2, 11)
    assert (info["obs_shape"], info["action_shape"], info["goal_shape"]) == ((16, 16, 3), (2,), (8, 8, 3))
    assert info["variation"] == {"has_variation": True, "names": ["agent.color", "size"]}
    assert {"pixels", "action", "episode_idx", "ep_idx", "episode_len", "variation.size"} <= set(info["columns"])
    assert info["metadata"]["env"] == "toy"
    plain = dataset_info(record(root / "plain.h5"))
    assert plain["goal_shape"] is None
    assert plain["variation"] == {"has_variation": False, "names": []}


def test_info_of_what_is_no_dataset_is_refused(root):
    for error in (NotFoundError, ValueError, FileNotFoundError):
        with pytest.raises(error, match="'absent' was not found"):
            dataset_info("absent")
    with HDF5Writer(root / "still.h5") as writer:
        writer.write_episode({"pixels": np.zeros((3, 4, 4, 3), np.uint8)})
    with pytest.raises(ContractError, match=r"no column 'action', only \['pixels'\]"):
        dataset_info("still")
    touch(root / "empty.txt")
    with pytest.raises(ContractError, match="no format recognises"):
        dataset_info("empty.txt")


def test_deleting_removes_the_dataset_and_what_belongs_to_it(root, capsys):
    record(root / "pusht.h5")
    record(root / "pusht_large.h5")
    record(root / "datasets" / "other.h5")
    touch(root / ".pusht.h5.partial" / "pusht.h5", root / "pusht.h5.features" / "key")
    mark_dead(root / "pusht.h5")
    assert data.delete_dataset("pusht") is True
    assert "Deleted dataset 'pusht'" in capsys.readouterr().out
    assert names_in(root) == ["datasets", "pusht_large.h5", "pusht_large.h5.journal"]
    assert data.delete_dataset("other.h5") is True
    assert names_in(root / "datasets") == []
    assert data.delete_dataset("pusht") is False
    assert "Error: no dataset 'pusht'" in capsys.readouterr().out


def test_deleting_looks_into_the_data_root_only(root, tmp_path):
    record(tmp_path / "work" / "here.h5")
    assert data.load_dataset("here").num_episodes == 2
    assert data.delete_dataset("here") is False
    for folder in ("datasets", "checkpoints", "previews"):
        record(root / folder / "x.h5")
        assert data.delete_dataset(folder) is False
        assert (root / folder / "x.h5").exists()


def test_a_dataset_that_is_being_written_is_not_deleted(root, capsys):
    with HDF5Writer(root / "x.h5") as writer:
        writer.write_episode(make_episode(0))
        assert data.delete_dataset("x") is False
        assert "another writer" in capsys.readouterr().out
        writer.write_episode(make_episode(1))
    assert data.load_dataset("x").num_episodes == 2
    assert data.delete_dataset("x") is True


def test_side_tables_go_with_their_dataset(root):
    touch(root / "a.lance" / "data", root / "a_episodes.lance" / "data", root / "b_episodes.lance" / "data")
    assert data.delete_dataset("a")
    assert names_in(root) == ["b_episodes.lance"]


@pytest.mark.parametrize("format", [name for name, fmt in data.FORMATS.items() if "open_writer" in vars(fmt)])
def test_a_dataset_of_any_format_is_listed_described_and_deleted_without_a_trace(root, format):
    for name in ("demo", "demo_2"):
        with data.open_writer(root / name, format=format) as writer:
            writer.write_episodes({**make_episode(k), "_episode_data": {"task": "a"}} for k in range(2))
    assert list_datasets() == ["demo", "demo_2"]
    info = dataset_info("demo")
    assert (info["num_episodes"], info["obs_shape"], info["action_shape"]) == (2, (16, 16, 3), (2,))
    kept = [name for name in names_in(root) if name.startswith("demo_2")]
    assert data.delete_dataset("demo")
    assert names_in(root) == kept
    assert dataset_info("demo_2")["num_episodes"] == 2


# -- models -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def models(root):
    touch(
        root / "a_object.ckpt",
        root / "a_weights.ckpt",
        root / "a_weights_epoch_3.ckpt",
        root / "a_b_object.ckpt",
        root / "a_weights_2_weights_9.ckpt",
        root / "checkpoints" / "run" / "weights.safetensors",
        root / "checkpoints" / "run" / "config.json",
        root / "checkpoints" / "run_2" / "checkpoint" / "weights.safetensors",
        root / "checkpoints" / "a" / "epoch.ckpt",
        root / "checkpoints" / "empty" / "log.txt",
        root / "checkpoints" / "z_weights.ckpt",
        root / "weights.pt",
        root / "notes.ckpt",
    )
    return root


def test_models_are_listed_once(models):
    assert list_models() == ["a", "a_b", "a_weights_2", "run", "run_2", "z"]


@pytest.mark.parametrize(
    ("name", "gone"),
    [
        ("a", {"a_object.ckpt", "a_weights.ckpt", "a_weights_epoch_3.ckpt", "checkpoints/a"}),
        ("a_b", {"a_b_object.ckpt"}),
        ("a_weights_2", {"a_weights_2_weights_9.ckpt"}),
        ("run", {"checkpoints/run"}),
        ("z", {"checkpoints/z_weights.ckpt"}),
    ],
)
def test_deleting_a_model_removes_exactly_its_files(models, capsys, name, gone):
    def entries():
        return {
            str(path.relative_to(models)) for folder in (models, models / "checkpoints") for path in folder.iterdir()
        }

    before = entries()
    assert data.delete_model(name) is True
    assert before - entries() == gone
    assert len(capsys.readouterr().out.splitlines()) == len(gone)
    assert name not in list_models()


@pytest.mark.parametrize("name", ["r", "a_", "empty", "weights", "*", "a*", "checkpoints"])
def test_names_that_are_no_model_delete_nothing(models, capsys, name):
    before = sorted(models.rglob("*"))
    assert data.delete_model(name) is False
    assert f"Error: no model {name!r}" in capsys.readouterr().out
    assert sorted(models.rglob("*")) == before


def test_models_behind_links_out_of_the_root_stay(models, tmp_path):
    touch(tmp_path / "big" / "weights.pt")
    (models / "checkpoints" / "linked").symlink_to(tmp_path / "big")
    with pytest.raises(ContractError, match="leads out of"):
        data.delete_model("linked")
    assert (tmp_path / "big" / "weights.pt").exists()


# -- worlds -----------------------------------------------------------------------------------------------------------


def test_worlds_are_the_registered_ids():
    assert "swm/TwoRoom-v1" in data.list_worlds()
    assert data.list_worlds() == sorted(data.list_worlds())


def test_world_info_describes_spaces_and_factors():
    info = world_info("TwoRoom-v1")
    assert info["name"] == "swm/TwoRoom-v1"
    env = gym.make("swm/TwoRoom-v1")
    assert info["action_space"]["shape"] == env.action_space.shape
    np.testing.assert_array_equal(info["action_space"]["low"], env.action_space.low)
    assert info["action_space"]["dtype"] == "float32"
    assert info["observation_space"]["type"] == "Box"
    assert info["variation"] == {
        "has_variation": True,
        "type": type(env.unwrapped.variation_space).__name__,
        "names": env.unwrapped.variation_space.names(),
    }
    assert info["config"] == {"image_shape": (224, 224), "render_mode": "rgb_array", "max_episode_steps": None}
    env.close()
    assert world_info("swm/TwoRoom-v1", image_shape=(64, 64))["config"]["image_shape"] == (64, 64)


class Nested(gym.Env):
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    closed = 0

    def __init__(self, render_mode=None):
        self.action_space = gym.spaces.Tuple([gym.spaces.Discrete(3), gym.spaces.Box(0, 1, (2,))])
        self.observation_space = gym.spaces.Dict({"a": gym.spaces.Discrete(4), "b": gym.spaces.Text(5)})
        self.variation_space = gym.spaces.Dict(
            {"x": gym.spaces.Discrete(2), "y": gym.spaces.Dict({"z": gym.spaces.Discrete(2)})}
        )

    def close(self):
        type(self).closed += 1


def test_nested_spaces_are_described_and_the_env_is_closed():
    gym.register("toy/Nested-v0", entry_point=Nested, max_episode_steps=7)
    try:
        info = world_info("toy/Nested-v0", render_mode=None)
    finally:
        del gym.registry["toy/Nested-v0"]
    discrete, box = info["action_space"]
    assert (discrete["type"], discrete["n"], discrete["shape"]) == ("Discrete", 3, ())
    assert "n" not in box
    assert info["observation_space"]["a"]["n"] == 4
    assert info["observation_space"]["b"]["type"] == "Text"
    assert info["variation"]["names"] == ["x", "y.z"]
    assert info["config"]["max_episode_steps"] == 7
    assert Nested.closed == 1


def test_world_info_is_a_copy_of_what_was_found_once():
    first = world_info("toy/Walk-v0")
    assert first["variation"] == {"has_variation": False, "type": None, "names": None}
    first["action_space"]["low"][:] = 99
    first["config"]["render_mode"] = "changed"
    again = world_info("toy/Walk-v0")
    assert again["action_space"]["low"].max() == -1
    assert again["config"]["render_mode"] == "rgb_array"


def test_an_id_registered_again_is_looked_at_again():
    gym.register("toy/Again-v0", entry_point=Nested, max_episode_steps=1)
    try:
        assert world_info("toy/Again-v0")["config"]["max_episode_steps"] == 1
        del gym.registry["toy/Again-v0"]
        gym.register("toy/Again-v0", entry_point=Nested, max_episode_steps=2)
        assert world_info("toy/Again-v0")["config"]["max_episode_steps"] == 2
    finally:
        del gym.registry["toy/Again-v0"]


def test_unknown_worlds_and_shapes_are_refused():
    with pytest.raises(ValueError, match=r"'swm/TwoRooms-v1'.*the worlds are \[.*swm/TwoRoom-v1"):
        world_info("swm/TwoRooms-v1")
    with pytest.raises(ContractError, match="expected \\(H, W\\)"):
        world_info("swm/TwoRoom-v1", image_shape=(64,))


def test_infos_are_plain_enough_for_json(root):
    info = dataset_info(record(root / "demo.h5"))
    assert json.loads(json.dumps(info))["num_episodes"] == 2
