"""Checking and repairing a dataset."""

import shutil

import h5py
import numpy as np
import pytest
from episode_factory import assert_same_episode, make_episode

from stable_worldmodel.data import HDF5Writer, load_dataset, verify
from stable_worldmodel.data.journal import journal_path


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "set.h5"
    with HDF5Writer(path) as writer:
        writer.write_episodes(make_episode(k) for k in range(4))
    return path


def damage(path, name, row, value):
    with h5py.File(path, "r+") as file:
        file[name][row] = value


def assert_repaired(path, episodes):
    report = verify(path, deep=True, repair=True)
    assert (report.ok, report.repaired_to) == (False, episodes)
    assert verify(path, deep=True).ok
    with HDF5Writer(path) as writer:
        writer.write_episodes(make_episode(k) for k in range(episodes, 4))
    assert verify(path, deep=True).checked == 4
    for k, episode in enumerate(load_dataset(path).iter_episodes()):
        assert_same_episode(episode, make_episode(k))


def test_sound_dataset_has_no_faults(path):
    lengths = load_dataset(path).lengths
    for deep in (False, True):
        report = verify(path, deep)
        assert report.ok
        assert (report.episodes, report.rows, report.checked) == (4, lengths.sum(), 4)


def test_dataset_being_written_has_no_faults(path):
    with HDF5Writer(path) as writer:
        writer.write_episode(make_episode(4))
        assert verify(path, deep=True).ok


def test_dataset_without_journal_is_checked_for_structure_only(path):
    journal_path(path).unlink()
    report = verify(path, deep=True)
    assert (report.ok, report.checked) == (True, 0)


def test_changed_numbers_are_found_and_cut_off(path):
    damage(path, "reward", load_dataset(path).offsets[2] + 1, 7.0)
    assert verify(path).faults == ["episode 2: differs from what was recorded, in ['reward']"]
    assert_repaired(path, 2)


def test_changed_pixels_are_found_when_looking_deep(path):
    damage(path, "pixels", 0, np.uint8(7))
    assert verify(path).ok
    assert not verify(path, deep=True).ok
    damage(path, "reward", -1, 7.0)
    assert_repaired(path, 0)


def test_short_columns_are_found_and_cut_off(path):
    with h5py.File(path, "r+") as file:
        file["grid"].resize(load_dataset(path).offsets[3] + 1, axis=0)
    assert "column 'grid'" in verify(path).faults[0]
    assert_repaired(path, 3)


def test_overlapping_episodes_are_found(path):
    damage(path, "ep_offset", 2, 0)
    assert "episode 2: rows 0" in verify(path).faults[0]


def test_rows_of_no_episode_are_found_and_cut_off(path):
    with h5py.File(path, "r+") as file:
        file["grid"].resize(1000, axis=0)
    assert "rows belong to no complete episode" in verify(path).faults[0]
    assert_repaired(path, 4)


def test_file_of_a_dead_writer_is_a_fault_that_append_repairs(path, tmp_path):
    copied = tmp_path / "killed.h5"
    with HDF5Writer(path):
        shutil.copy(path, copied)  # what a kill would leave
    assert "its writer died" in verify(copied).faults[0]
    HDF5Writer(copied).close()
    assert verify(copied).ok
