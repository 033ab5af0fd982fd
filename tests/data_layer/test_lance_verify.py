"""`verify` of Lance datasets finds what is wrong, and its repair keeps the episodes before."""

import shutil
import subprocess
import sys
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest
from directory_episodes import make_views

from stable_worldmodel.data import load_dataset, open_writer, verify
from stable_worldmodel.data.formats.lance.location import locate
from stable_worldmodel.errors import ContractError

EPISODES = 6


@pytest.fixture(scope="module", params=["lance", "lance_video"])
def original(request, tmp_path_factory):
    """Three fragments of two episodes each."""
    folder = tmp_path_factory.mktemp("original")
    with open_writer(folder / "data", request.param, commit_every=2) as writer:
        writer.write_episodes(make_views(k, rows=6) | {"_episode_data": {"k": k}} for k in range(2))
    with open_writer(folder / "data", request.param, commit_every=2) as writer:
        writer.write_episodes(make_views(k, rows=6) | {"_episode_data": {"k": k}} for k in range(2, EPISODES))
    return folder


@pytest.fixture
def path(original, tmp_path):
    shutil.copytree(original, tmp_path / "copy")
    return tmp_path / "copy" / "data"


def data_files(path, table):
    """The data files of a table, in the order of their rows."""
    uri = locate(load_dataset(path).path).path(table)
    fragments = lance.dataset(str(uri)).get_fragments()
    return [uri / "data" / file.path for fragment in fragments for file in fragment.data_files()]


def flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 4
    file.write_bytes(data)


def test_good_dataset_is_good(path):
    for deep in (False, True):
        report = verify(path, deep=deep)
        assert (report.ok, report.episodes, report.rows, report.checked) == (True, 6, 36, 6)


@pytest.mark.parametrize("damage", ["truncate", "delete"])
def test_repair_keeps_the_episodes_before_a_file_that_cannot_be_read(path, damage):
    third = data_files(path, "frames")[-2]  # episodes 2 and 3, or 3 and 4
    if damage == "truncate":
        third.write_bytes(third.read_bytes()[:500])
    else:
        third.unlink()
    with pytest.raises(ContractError, match=r"data\.lance"):
        load_dataset(path)
    assert not verify(path).ok
    assert "nothing was cut" not in verify(path).faults[-1]
    report = verify(path, repair=True)
    assert 0 < report.repaired_to < EPISODES
    ds = load_dataset(path)
    assert ds.num_episodes == report.repaired_to
    assert ds.get_episode_data()["k"] == list(range(report.repaired_to))
    assert verify(path, deep=True).ok
    with open_writer(path, "lance" if path.with_name("data.lance").exists() else "lance_video") as writer:
        for k in range(writer.num_episodes, EPISODES):
            writer.write_episode(make_views(k, rows=6) | {"_episode_data": {"k": k}})
    again = load_dataset(path)
    for k in range(EPISODES):
        np.testing.assert_array_equal(again.read_rows(k, 0, 6)["action"], make_views(k, rows=6)["action"])


def test_nothing_is_cut_when_no_episode_is_good(path):
    for file in data_files(path, "frames"):
        file.write_bytes(b"")
    before = sorted(file.name for file in path.parent.rglob("*"))
    report = verify(path, repair=True)
    assert "nothing was cut" in report.faults[-1]
    assert report.repaired_to is None
    assert sorted(file.name for file in path.parent.rglob("*")) == before


def test_changed_bit_of_an_image_is_noticed(path):
    videos = path.is_dir()
    file = data_files(path, "videos" if videos else "frames")[-1]
    marker = b"mdat" if videos else b"\xff\xda"  # before the coded picture
    at = file.read_bytes().rindex(marker) + 60
    flip(file, at)
    assert verify(path).ok
    report = verify(path, deep=True)
    assert "episode 5" in report.faults[0]
    ds = load_dataset(path, cache="none")
    ds.read_rows(0, 0, 6)
    with pytest.raises(ContractError, match=r"data\.lance: column 'pixels', episode 5, row \d: its checksum"):
        ds.read_rows(5, 0, 6)
    assert verify(path, deep=True, repair=True).repaired_to == 5
    assert load_dataset(path).num_episodes == 5


@pytest.mark.parametrize("column", ["action", "seed", "policy", "goal"])
def test_changed_values_are_noticed(path, column):
    """Values that another tool has rewritten, in a table that is whole."""
    side = column in ("seed", "policy", "goal")
    uri = locate(load_dataset(path).path).path("episodes" if side else "frames")
    table = lance.dataset(str(uri)).to_table()
    field = {"seed": "exact_seed"}.get(column, column)
    values = table[field].to_pylist()
    k = 4 if side else 4 * 6 + 2
    values[k] = {"action": [7.0, 7.0], "policy": "other", "goal": values[0]}.get(column, values[1])
    index = table.schema.get_field_index(field)
    changed = table.set_column(index, table.schema.field(field), pa.array(values, table.schema.field(field).type))
    lance.write_dataset(changed, str(uri), mode="overwrite", schema=table.schema)
    report = verify(path, deep=True)
    assert report.faults[0].startswith(f"episode 4: {uri.parent}")
    assert f"{column!r} of episode 4 differs from what was recorded" in report.faults[0]
    if column != "goal":  # each picture has a seal of its own
        with pytest.raises(ContractError, match=f"{column}.* of episode 4 differs"):
            load_dataset(path)
    assert verify(path, deep=True, repair=True).repaired_to == 4


def newest_manifest(path):
    return min(locate(load_dataset(path).path).path("frames").glob("_versions/*.manifest"))  # numbers count down


@pytest.mark.parametrize(
    ("entry", "wrong"),
    [
        pytest.param(b"swm.name\x12\x04seed", "weed", id="copy of exact numbers for other tools"),
        pytest.param(b"\x12\x08step_idx", "step_idx", id="step"),
    ],
)
def test_one_bit_in_the_name_of_a_column_is_noticed(path, entry, wrong):
    manifest = newest_manifest(path)
    flip(manifest, manifest.read_bytes().index(entry) + entry.rindex(b"s"))
    with pytest.raises(ContractError, match=rf"columns \['{wrong}'\] are not as they were recorded"):
        load_dataset(path)
    assert f"['{wrong}'] are not" in verify(path).faults[0]


def test_a_manifest_need_not_say_how_many_rows_a_file_has(path):
    expected = load_dataset(path).read_rows(5, 0, 6)["pixels"]
    manifest = newest_manifest(path)
    data = manifest.read_bytes()
    manifest.write_bytes(data.replace(b" \x0c", b"0\x0c"))  # 12 rows: in another field than the one for them
    last = lance.dataset(str(manifest.parents[1])).get_fragments()[-1]
    assert last.metadata.physical_rows is None
    np.testing.assert_array_equal(load_dataset(path).read_rows(5, 0, 6)["pixels"], expected)
    assert verify(path, deep=True).ok


def test_zeros_in_a_file_do_not_end_the_process(path):
    """An error message with a zero byte aborts pylance while it scans."""
    file = data_files(path, "episodes")[-1]
    data = bytearray(file.read_bytes())
    at = data.rindex(b"/lance.encodings21.PageLayout")
    data[at + 2 : at + 18] = bytes(16)
    file.write_bytes(data)
    code = "import sys; from stable_worldmodel.data import verify; print(verify(sys.argv[1], repair=True).repaired_to)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr[-1000:]
    assert 0 < int(done.stdout) < EPISODES
    assert verify(path, deep=True).ok


def test_missing_table_is_named(path):
    shutil.rmtree(locate(load_dataset(path).path).path("episodes"))
    with pytest.raises(ContractError, match=r"data_episodes\.lance: there is no such table"):
        load_dataset(path)
    assert "data_episodes.lance" in verify(path).faults[0]


def test_lost_episodes_are_not_passed_over(path):
    newest = sorted(locate(load_dataset(path).path).path("frames").glob("_versions/*.manifest"))[0]
    newest.unlink()
    with pytest.raises(ContractError, match=r"episodes 4 to 5 were recorded and are not there; look with data\.verify"):
        load_dataset(path)
    report = verify(path, repair=True)
    assert "episodes 4 to 5 were recorded" in report.faults[0]
    assert report.repaired_to == 4
    assert load_dataset(path).num_episodes == 4


def test_log_of_a_killed_writer_is_reported_and_folded(tmp_path):
    with open_writer(tmp_path / "data", "lance") as writer:
        writer.write_episodes(make_views(k, rows=6) for k in range(3))
        assert verify(tmp_path / "data").ok  # it is alive
        shutil.copytree(tmp_path, tmp_path / "copy")
    path = tmp_path / "copy" / "data"
    assert "its writer died; other programs do not see its last 2 episodes" in verify(path).faults[0]
    assert load_dataset(path).num_episodes == 3
    log = path.with_name("data.lance.log")
    log.write_bytes(log.read_bytes()[:-10])
    with pytest.raises(ContractError, match="episodes 2 to 2 were recorded"):
        load_dataset(path)
    assert verify(path, repair=True).repaired_to == 2
    assert verify(path, deep=True).ok
    assert lance.dataset(str(path.with_name("data.lance"))).count_rows() == 12


def test_version_that_never_reached_the_disk_is_dropped(path, caplog):
    with open_writer(path, "lance_video" if path.is_dir() else "lance") as writer:
        writer.write_episode(make_views(6, rows=6) | {"_episode_data": {"k": 6}})
    frames = locate(load_dataset(path).path).path("frames")
    newest = min(frames.glob("_versions/*.manifest"))
    newest.write_bytes(newest.read_bytes()[:40])
    report = verify(path, repair=True)
    assert report.repaired_to == EPISODES
    assert "never reached the disk" in caplog.text
    assert verify(path, deep=True).ok


def test_foreign_rows_with_wrong_numbers_are_found(tmp_path):
    columns = {
        "episode_idx": pa.array([0, 0, 2], pa.int32()),
        "step_idx": pa.array([0, 1, 0], pa.int32()),
        "x": [1.0] * 3,
    }
    lance.write_dataset(pa.table(columns), tmp_path / "data.lance")
    assert "episode 1: row 2 has the wrong 'episode_idx' or 'step_idx'" in verify(tmp_path / "data").faults
    assert verify(tmp_path / "data").checked == 0
