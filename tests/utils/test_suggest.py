from __future__ import annotations

from pathlib import Path

import pytest

from stable_worldmodel.data.cache import dataset_path
from stable_worldmodel.errors import NotFoundError
from stable_worldmodel.utils.files import disk_size, format_bytes
from stable_worldmodel.utils.suggest import nearest, nearest_entry
from stable_worldmodel.wm.hub import locate


def test_the_nearest_name_is_suggested() -> None:
    assert nearest("rooms", ["moons", "roomz", "pusht"]) == "\ndid you mean 'roomz'?"
    assert nearest("rooms", ["pusht"]) == ""


def test_folders_that_cannot_be_read_have_nothing(tmp_path: Path) -> None:
    (tmp_path / "rooms.h5").touch()
    assert "'rooms'" in nearest_entry("roms", [tmp_path, tmp_path / "absent"])
    assert nearest_entry("roms", [tmp_path / "absent"]) == ""


def test_datasets_and_checkpoints_that_are_not_there_are_compared_with_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "rooms.h5").touch()
    with pytest.raises(NotFoundError, match=r"did you mean 'rooms\.h5'\?$"):
        dataset_path("roms.h5", tmp_path)
    (tmp_path / "checkpoints" / "lewm-rooms").mkdir(parents=True)
    with pytest.raises(NotFoundError, match=r"did you mean 'lewm-rooms'\?$"):
        locate("lewm-roms", tmp_path)


def test_sizes_count_linked_files_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    (tmp_path / "lost").symlink_to(tmp_path / "nowhere")
    assert disk_size(tmp_path) == disk_size(tmp_path / "a") == 5
    assert [format_bytes(size) for size in (5, 43_200, 43_200_000, 5e12)] == ["5 B", "43.2 kB", "43.2 MB", "5e+03 GB"]
