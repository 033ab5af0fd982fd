"""A file is the old one or the new one."""

import json

import pytest

from stable_worldmodel.utils.files import write_atomically, write_json


def test_a_file_is_replaced_whole_and_folders_are_made(tmp_path):
    target = tmp_path / "a" / "b.json"
    assert write_json(target, {"x": [1, 2.5, None]}) == target
    write_json(target, {"x": 2})
    assert json.loads(target.read_text()) == {"x": 2}
    assert [path.name for path in target.parent.iterdir()] == ["b.json"]


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    target = tmp_path / "data"
    write_atomically(target, b"old")
    with pytest.raises(TypeError):
        write_atomically(target, "text")  # type: ignore[arg-type]
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]
