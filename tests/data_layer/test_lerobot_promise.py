"""The promise of the directory formats, kept by `lerobot`: the same tests, for another format."""

import directory_episodes
import pytest
import test_directory_crash as crash
import test_directory_values as values
import test_directory_writers as writers

FORMAT = "lerobot"
directory_episodes.BOUNDS[FORMAT] = directory_episodes.BOUNDS["video"]
_OF_OTHER_FILES = {
    "test_equal_episodes_give_equal_files_in_one_or_many_sessions",
    "test_bad_episode_is_refused_before_anything_is_written",  # Arrow keeps texts that end with NUL
    "test_constant_columns_are_stored_once",
    "test_killed_recording_keeps_acknowledged_episodes_and_continues_to_the_same_files",
    "test_killed_overwrite_keeps_the_old_dataset",
    "test_torn_record_in_the_log_is_ignored_and_written_again",
    "test_recorded_episode_that_is_gone_is_missed",
}
for module in (writers, values, crash):
    shared = {name: test for name, test in vars(module).items() if name.startswith("test_")}
    globals().update({name: test for name, test in shared.items() if name not in _OF_OTHER_FILES})


@pytest.fixture
def format():
    return FORMAT


@pytest.fixture
def path(tmp_path):
    return tmp_path / "set"


def files(path):
    """All files but the one that carries the identity of the dataset."""
    found = writers.snapshot(path)
    return {str(name): data for name, data in found.items() if name.name != "info.json"}


def test_equal_episodes_give_equal_files_in_one_or_many_sessions(path, tmp_path):
    writers.write(path, FORMAT, range(5))
    for k in range(5):
        writers.write(tmp_path / "other", FORMAT, [k])
    assert files(path) == files(tmp_path / "other")


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_recording_keeps_acknowledged_episodes_and_continues_to_the_same_files(tmp_path, kills, monkeypatch):
    monkeypatch.setattr(crash, "contents", files)
    crash.test_killed_recording_keeps_acknowledged_episodes_and_continues_to_the_same_files(tmp_path, FORMAT, kills)


def test_killed_overwrite_keeps_the_old_dataset(tmp_path):
    crash.test_killed_overwrite_keeps_the_old_dataset(tmp_path, FORMAT)
