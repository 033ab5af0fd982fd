"""Checking and repairing datasets of the directory formats, and what readers do with damaged ones."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from directory_episodes import FORMATS, assert_close, make_views

from stable_worldmodel.data import load_dataset, open_writer, verify
from stable_worldmodel.data.journal import journal_path
from stable_worldmodel.errors import ContractError

EPISODES = 5


@pytest.fixture(params=FORMATS)
def format(request):
    return request.param


@pytest.fixture
def path(tmp_path, format):
    path = tmp_path / "set"
    with open_writer(path, format) as writer:
        writer.write_episodes(make_views(k, rows=8) for k in range(EPISODES))
    return path


def image_file(path, format, episode):
    step = 3
    return {
        "folder": path / f"pixels/ep_{episode}_step_{step}.jpeg",
        "video": path / f"pixels/ep_{episode}.mp4",
        "hf_arrow": path / f"img/{episode}/{step}_pixels.jpeg",
    }[format]


def flip(file, at, bit=0):
    data = bytearray(file.read_bytes())
    data[at] ^= 1 << bit
    file.write_bytes(data)


def assert_holds(path, format, episodes):
    ds = load_dataset(path)
    assert ds.num_episodes == episodes
    for k, episode in enumerate(ds.iter_episodes()):
        assert_close(episode, make_views(k, rows=8), format)


def assert_repaired(path, format, episodes):
    report = verify(path, deep=True, repair=True)
    assert (report.ok, report.repaired_to) == (False, episodes)
    assert_holds(path, format, episodes)
    with open_writer(path, format) as writer:
        assert writer.num_episodes == episodes
        writer.write_episodes(make_views(k, rows=8) for k in range(episodes, EPISODES))
    report = verify(path, deep=True)
    assert (report.ok, report.checked) == (True, EPISODES)
    assert_holds(path, format, EPISODES)
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["set", "set.journal"]


def test_sound_dataset_has_no_faults(path):
    for deep in (False, True):
        report = verify(path, deep)
        assert report.ok
        assert (report.episodes, report.rows, report.checked) == (EPISODES, 8 * EPISODES, EPISODES)


def test_dataset_being_written_has_no_faults(path, format):
    with open_writer(path, format) as writer:
        writer.write_episode(make_views(EPISODES, rows=8))
        assert verify(path, deep=True).ok
        assert verify(path).episodes == EPISODES + 1


def test_dataset_without_journal_is_checked_for_structure_only(path):
    journal_path(path).unlink()
    report = verify(path, deep=True)
    assert (report.ok, report.checked) == (True, 0)


def test_dataset_of_a_dead_writer_is_a_fault_that_append_repairs(path, format, tmp_path):
    copied = tmp_path / "killed"
    with open_writer(path, format) as writer:
        writer.write_episode(make_views(EPISODES, rows=8))
        shutil.copytree(path, copied)  # what a kill would leave
        for suffix in (".log", ".journal"):
            shutil.copy(f"{path}{suffix}", f"{copied}{suffix}")
    assert "its writer died; other programs do not see its last 1 episodes" in verify(copied).faults[0]
    open_writer(copied, format).close()
    assert verify(copied, deep=True).ok
    assert_holds(copied, format, EPISODES + 1)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing", "exchanged"])
def test_damaged_image_is_named_and_cut_off(path, format, damage):
    file = image_file(path, format, 3)
    if damage == "flipped":
        flip(file, file.stat().st_size // 2)
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif damage == "missing":
        file.unlink()
    else:
        file.write_bytes(image_file(path, format, 1).read_bytes())
    ds = load_dataset(path, cache="none")
    if damage != "exchanged":
        with pytest.raises(ContractError, match=f"{file.name} .episode 3, row [0-7]."):
            ds.read_rows(3, 0, 8)
    assert_close(ds.read_rows(2, 0, 8), make_views(2, rows=8), format)
    assert verify(path).ok == (damage != "missing")
    (fault,) = verify(path, deep=True).faults
    assert fault.startswith("episode 3: ")
    assert_repaired(path, format, 3)


def table_file(path, format):
    return path / ("data-00000-of-00001.arrow" if format == "hf_arrow" else "reward.npz")


def value_position(path, format, episode):
    """Where the file holds the first reward of an episode."""
    reward = make_views(episode, rows=8)["reward"]
    return table_file(path, format).read_bytes().index(reward[1:3].tobytes())


def test_flipped_number_is_never_read(path, format):
    flip(table_file(path, format), value_position(path, format, 3), bit=5)
    with pytest.raises(ContractError, match=table_file(path, format).name):
        load_dataset(path)


@pytest.mark.parametrize("format", ["folder", "video"], indirect=True)
def test_folder_with_a_flipped_number_is_cut_before_its_episode(path, format):
    flip(table_file(path, format), value_position(path, format, 3), bit=5)
    faults = verify(path).faults
    assert "reward.npz: damaged" in faults[0]
    assert faults[1].startswith("episode 3: differs from what was recorded, in ['reward']")
    assert_repaired(path, format, 3)


@pytest.mark.parametrize("format", ["folder", "video"], indirect=True)
def test_folder_with_a_truncated_column_is_cut_before_the_first_episode_concerned(path, format):
    file = table_file(path, format)
    file.write_bytes(file.read_bytes()[: value_position(path, format, 3) + 1])
    with pytest.raises(ContractError, match=r"reward\.npz"):
        load_dataset(path)
    assert_repaired(path, format, 3)


def test_arrow_files_from_a_damaged_one_on_are_cut_off(tmp_path):
    path = tmp_path / "set"
    with open_writer(path, "hf_arrow") as writer:
        writer.write_episodes({"reward": np.arange(3.0) + k} for k in range(170))
    flip(path / "data-00001-of-00003.arrow", 1000)
    report = verify(path, repair=True)
    assert "data-00001-of-00003.arrow: damaged" in report.faults[0]
    assert report.repaired_to == 50
    assert load_dataset(path).get_col_data("reward").tolist() == [float(k + i) for k in range(50) for i in range(3)]
    assert verify(path, deep=True).checked == 50
    assert sorted(entry.name for entry in path.iterdir()) == [
        "data-00000-of-00001.arrow", "dataset_info.json", "state.json",
    ]  # fmt: skip


def test_dataset_without_a_good_episode_is_left_as_it_is(path, format):
    image_file(path, format, 0).unlink()
    before = sorted(path.rglob("*"))
    report = verify(path, deep=True, repair=True)
    assert "nothing was cut" in report.faults[-1]
    assert report.repaired_to is None
    assert sorted(path.rglob("*")) == before


@pytest.mark.parametrize("format", ["folder", "video"], indirect=True)
def test_missing_column_is_a_fault(path, format):
    (path / "grid.npz").unlink()
    assert "columns ['grid'] were recorded and are not there" in verify(path).faults[0]


@pytest.mark.parametrize("format", ["folder", "video"], indirect=True)
def test_overlapping_episodes_are_found(path, format):
    with np.load(path / "ep_offset.npz") as stored:
        offsets = stored["arr_0"].copy()
    offsets[2] = 0
    np.savez(path / "ep_offset.npz", offsets)
    assert "episode 2: rows 0" in verify(path).faults[0]


@pytest.mark.parametrize("count", [40, pytest.param(500, marks=pytest.mark.slow)])
def test_random_damage_gives_an_error_that_names_it_or_a_correct_read(path, format, count, tmp_path):
    rng = random.Random(count)
    clean = [
        {name: np.array(values) for name, values in episode.items()} for episode in load_dataset(path).iter_episodes()
    ]
    files = sorted(file for file in path.rglob("*") if file.is_file())
    outcomes = {"read": 0, "error": 0}
    for _ in range(count):
        file = rng.choice(files)
        original = file.read_bytes()
        if rng.random() < 0.5:
            flip(file, rng.randrange(len(original)), rng.randrange(8))
        else:
            file.write_bytes(original[: rng.randrange(len(original))])
        try:
            outcomes[read_everything(path, clean, file)] += 1
        finally:
            file.unlink()
            file.write_bytes(original)
    assert outcomes["error"] > count / 2


def read_everything(path, clean, damaged):
    """`read` when all episodes are as they were, `error` when a ContractError names the file; fails otherwise."""
    try:
        found = list(load_dataset(path, format=None, cache="none").iter_episodes())
    except ContractError as error:
        described = str(error)
        assert damaged.name in described or "no format recognises it" in described or str(path) in described, described
        return "error"
    assert len(found) == len(clean)
    for episode, expected in zip(found, clean, strict=True):
        assert set(episode) == set(expected)
        for name, values in expected.items():
            np.testing.assert_array_equal(episode[name], values, err_msg=f"{name} after damage to {damaged}")
    return "read"


def test_damaged_state_is_an_error(tmp_path):
    path = tmp_path / "set"
    with open_writer(path, "hf_arrow") as writer:
        writer.write_episodes({"x": np.arange(2)} for _ in range(120))
    state = json.loads((path / "state.json").read_text())
    for change in (
        {"_data_files": [{"filename": "../x.arrow"}]},
        {"_data_files": state["_data_files"][::-1]},
        {"_data_files": state["_data_files"][:1] * 2},
        {"_data_files": [{"filename": "data-00007-of-00002.arrow"}]},
        {"_data_files": None},
    ):
        (path / "state.json").write_text(json.dumps({**state, **change}))
        with pytest.raises(ContractError, match=str(path)):
            load_dataset(path)
    assert Path(path).is_dir()
