"""Where datasets are found, and which format opens them."""

import subprocess
import sys

import pytest
from episode_factory import make_episode

from stable_worldmodel import data
from stable_worldmodel.errors import ContractError, NotFoundError


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A cache root, with an empty working directory elsewhere."""
    monkeypatch.setenv("STABLEWM_HOME", str(tmp_path / "root"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "root"


def record(path, episodes=1):
    with data.open_writer(path, mode="overwrite") as writer:
        writer.write_episodes(make_episode(k) for k in range(episodes))


def test_cache_root_is_read_at_every_call(tmp_path, monkeypatch):
    for name in ("a", "b"):
        monkeypatch.setenv("STABLEWM_HOME", str(tmp_path / name))
        assert data.get_cache_dir() == tmp_path / name
    assert data.get_cache_dir(sub_folder="previews").is_dir()
    assert data.get_cache_dir(tmp_path / "c", "datasets") == tmp_path / "c" / "datasets"
    monkeypatch.setenv("STABLEWM_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    assert data.get_cache_dir() == tmp_path / "user" / ".stable_worldmodel"


def test_dataset_is_found_by_name_with_or_without_suffix(home):
    for relative in ("first.h5", "second.hdf5", "datasets/third.h5", "owner/fourth.h5"):
        record(home / relative)
    for name in ("first", "first.h5", "second", "third", "owner/fourth"):
        assert data.load_dataset(name).num_episodes == 1, name
    assert data.HDF5Dataset("third").num_episodes == 1


def test_root_comes_before_its_datasets_folder_and_the_working_directory_first(home, tmp_path):
    record(home / "datasets" / "x.h5", 1)
    assert data.load_dataset("x").num_episodes == 1
    record(home / "x.h5", 2)
    assert data.load_dataset("x").num_episodes == 2
    record(tmp_path / "work" / "x.h5", 3)
    assert data.load_dataset("x").num_episodes == 3
    assert data.load_dataset("x", cache_dir=home).num_episodes == 3


def test_relative_path_that_was_written_is_found(home):
    record("out/x.h5")
    assert data.load_dataset("out/x.h5").num_episodes == 1
    assert data.load_dataset("out/x").num_episodes == 1
    assert data.load_dataset("x", cache_dir="out").num_episodes == 1


def test_missing_dataset_lists_the_places_tried(home):
    with pytest.raises(NotFoundError, match=r"(?s)'x' was not found.*work/x\n.*root/x\.h5\n.*root/datasets/x\.lance"):
        data.load_dataset("x")
    with pytest.raises(NotFoundError, match="absent"):
        data.load_dataset("/absent/x.h5")


@pytest.mark.parametrize("name", ["", "..", "../x", "a/../../x", "/x", " "])
def test_names_that_leave_the_root_are_refused(home, name):
    with pytest.raises(ContractError, match="relative name without"):
        data.new_dataset_path(name)
    with pytest.raises((NotFoundError, ContractError)):
        data.load_dataset(name)


def test_new_dataset_is_named_after_the_root(home):
    assert data.new_dataset_path("pusht") == home / "pusht.h5"


def test_directory_with_one_file_is_that_file(home):
    record(home / "run" / "x.h5")
    assert data.load_dataset("run").num_episodes == 1
    with data.open_writer(home / "run") as writer:
        assert writer.num_episodes == 1
    record(home / "run" / "y.h5")
    with pytest.raises(ContractError, match="expected one"):
        data.load_dataset("run")


def test_missing_suffix_is_added_on_writing(home):
    record("v1.2")
    assert data.load_dataset("v1.2.h5").num_episodes == 1
    with data.open_writer("v1.2", format="hdf5") as writer:
        assert writer.num_episodes == 1


def test_unknown_formats_and_modes_are_named(home, tmp_path):
    (tmp_path / "work" / "x.bin").touch()
    with pytest.raises(ContractError, match="no format recognises it"):
        data.load_dataset("x.bin")
    with pytest.raises(ContractError, match="unknown dataset format 'zarr'"):
        data.load_dataset("x.bin", format="zarr")
    with pytest.raises(ContractError, match="expected one of"):
        data.open_writer("x", mode="w")
    with pytest.raises(ContractError, match="local paths"):
        data.open_writer("s3://bucket/x.h5")


def test_a_new_format_is_one_class(home, monkeypatch):
    monkeypatch.setattr(data.registry, "FORMATS", dict(data.FORMATS))

    @data.register_format
    class Toy(data.Format):
        name = "toy"
        suffixes = (".toy",)

        @classmethod
        def detect(cls, path):
            return str(path).endswith(".toy")

        @classmethod
        def open_writer(cls, path, **kwargs):
            return path, kwargs

    assert data.list_formats()[-1] == "toy"
    assert data.detect_format("x.toy") is Toy is data.get_format("toy")
    assert data.open_writer("x.toy")[1] == {"mode": "append", "metadata": None}
    with pytest.raises(ContractError, match="suffix means format 'toy'"):
        data.open_writer("x.toy", format="hdf5")
    with pytest.raises(NotImplementedError, match="cannot be read"):
        Toy.open_reader("x.toy")
    with pytest.raises(ContractError, match="already registered"):
        data.register_format(Toy)
    with pytest.raises(ContractError, match="is empty"):
        data.register_format(type("Nameless", (data.Format,), {}))


def test_importing_the_data_layer_is_light():
    code = (
        "import sys, stable_worldmodel.data; print([m for m in ('torch', 'h5py', 'scipy', 'PIL') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_module_aliases_exist():
    assert data.utils.get_cache_dir is data.get_cache_dir
    assert data.dataset.Dataset is data.Dataset
    assert data.formats.hdf5.HDF5Dataset is data.HDF5Dataset
    assert data.normalization.ZScoreScaler is data.ZScoreScaler
