"""Copies in other formats and joined datasets: what they keep, what they refuse, what an interruption leaves."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from episode_factory import assert_same_episode, make_episode

from stable_worldmodel import data
from stable_worldmodel.data import HDF5Writer, convert, load_dataset, merge
from stable_worldmodel.errors import ContractError, NotFoundError


@pytest.fixture
def source(tmp_path):
    return make_source(tmp_path / "in" / "source.h5", range(4), env="toy", policy="random")


def make_source(path, numbers, **metadata):
    with HDF5Writer(path, metadata=metadata) as writer:
        writer.write_episodes(make_episode(k) for k in numbers)
    return path


def assert_holds(path, numbers):
    ds = load_dataset(path)
    for found, k in zip(ds.iter_episodes(), numbers, strict=True):
        assert_same_episode(found, make_episode(k))
    return ds


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_copy_has_the_episodes_and_remembers_its_source(source, tmp_path):
    written = convert(source, tmp_path / "out" / "copy", progress=False)
    assert written == tmp_path / "out" / "copy.h5"
    ds = assert_holds(tmp_path / "out" / "copy", range(4))
    assert ds.metadata == {
        "env": "toy",
        "policy": "random",
        "converted_from": {"name": "source.h5", "format": "hdf5", "episodes": 4},
    }
    report = data.verify(written, deep=True)
    assert report.ok
    assert report.checked == 4
    assert names_in(written.parent) == ["copy.h5", "copy.h5.journal"]


def test_the_target_is_never_half_there(source, tmp_path):
    class Stops(Exception):
        pass

    class StopAfterTwo:
        done = 0

        def stage(self, name):
            pass

        def task(self, name, total, done=0):
            assert total == 4
            return self

        def advance(self, n=1, **_):
            self.done += n
            if self.done == 2:
                raise Stops

    for mode in ("error", "overwrite"):
        with pytest.raises(Stops):
            convert(source, tmp_path / "copy.h5", mode=mode, progress=StopAfterTwo())
        assert names_in(tmp_path) == ["in"]
    make_source(tmp_path / "copy.h5", [9])
    with pytest.raises(Stops):
        convert(source, tmp_path / "copy.h5", mode="overwrite", progress=StopAfterTwo())
    assert_holds(tmp_path / "copy.h5", [9])
    assert names_in(tmp_path) == ["copy.h5", "copy.h5.journal", "in"]


CHILD = """
import sys, time
from stable_worldmodel.data import convert
class Slow:
    def stage(self, name): pass
    def task(self, name, total, done=0): return self
    def advance(self, n=1, **_):
        print("episode", flush=True)
        time.sleep(0.2)
convert(sys.argv[1], sys.argv[2], mode="overwrite", progress=Slow())
"""


def test_a_killed_copy_leaves_the_old_dataset_and_the_next_one_succeeds(source, tmp_path):
    target = make_source(tmp_path / "copy.h5", [9])
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(source), str(target)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "episode\n"
    with pytest.raises(data.DatasetLockedError):
        convert(source, target, mode="overwrite", progress=False)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert_holds(target, [9])
    convert(source, target, mode="overwrite", progress=False)
    assert_holds(target, range(4))
    assert names_in(tmp_path) == ["copy.h5", "copy.h5.journal", "in"]


def test_modes_say_what_happens_to_an_existing_target(source, tmp_path):
    target = tmp_path / "copy.h5"
    convert(source, target, progress=False)
    with pytest.raises(FileExistsError, match="choose another path"):
        convert(source, target, progress=False)
    convert(source, target, mode="append", progress=False)
    assert_holds(target, [*range(4), *range(4)])
    convert(source, target, mode="overwrite", progress=False)
    assert_holds(target, range(4))
    convert(source, tmp_path / "new.h5", mode="append", progress=False)
    assert_holds(tmp_path / "new.h5", range(4))
    with pytest.raises(ContractError, match="is one of the sources"):
        convert(source, source, mode="append", progress=False)
    with pytest.raises(ContractError, match="write mode"):
        convert(source, target, mode="w", progress=False)


def test_a_dataset_can_be_rewritten_in_place(source):
    convert(source, source, mode="overwrite", progress=False, text_width=200)
    assert_holds(source, range(4))
    with h5py.File(source) as file:
        assert file["policy"].dtype.itemsize == 200  # options go to the writer


def test_sources_and_formats_are_resolved_like_those_of_load_dataset(source, tmp_path, monkeypatch):
    monkeypatch.setenv("STABLEWM_HOME", str(tmp_path / "in"))
    monkeypatch.chdir(tmp_path)
    assert convert("source", "copy.hdf5", progress=False) == Path("copy.hdf5")
    assert_holds("copy.hdf5", range(4))
    convert("source", "named", dest_format=None, progress=False)
    assert_holds("named", range(4))
    with pytest.raises(NotFoundError):
        convert("absent", "x", progress=False)
    with pytest.raises(ContractError, match="unknown dataset format 'zarr'"):
        convert("source", "x", dest_format="zarr", progress=False)
    with pytest.raises(ContractError, match="is a directory; name the file in it"):
        convert("source", tmp_path / "in", mode="overwrite", progress=False)
    assert names_in(tmp_path) == ["copy.hdf5", "copy.hdf5.journal", "in", "named.h5", "named.h5.journal"]


def test_files_of_earlier_releases_become_new_ones(tmp_path):
    lengths, rng = np.array([5, 8]), np.random.default_rng(0)
    pixels, action = rng.integers(0, 256, (13, 8, 8, 3), dtype=np.uint8), rng.normal(size=(13, 2))
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.create_dataset("pixels", data=pixels, chunks=(5, 8, 8, 3), compression="gzip")
        file["action"], file["ep_idx"] = action, np.repeat([0, 1], lengths)
        file["task"] = np.array(["push"] * 13, dtype=h5py.string_dtype())
        file["ep_len"], file["ep_offset"] = lengths.astype(np.int32), np.array([0, 5])
    convert(tmp_path / "old.h5", tmp_path / "new.h5", progress=False)
    ds = load_dataset(tmp_path / "new.h5")
    np.testing.assert_array_equal(ds.get_row_data(np.arange(13))["pixels"], pixels)
    np.testing.assert_array_equal(ds.get_col_data("action"), action)
    assert set(ds.get_col_data("task")) == {"push"}
    assert sorted(ds.column_names) == ["action", "pixels", "task"]


def test_a_writer_that_loses_rows_is_noticed(source, tmp_path, monkeypatch):
    monkeypatch.setattr(data.registry, "FORMATS", dict(data.FORMATS))

    @data.register_format
    class Lossy(data.Format):
        name, suffixes = "lossy", (".lossy",)

        @classmethod
        def detect(cls, path):
            return str(path).endswith(".lossy")

        @classmethod
        def open_writer(cls, path, **kwargs):
            class Writer(HDF5Writer):
                def write_episodes(self, episodes):
                    super().write_episodes(list(episodes)[:-1])

            return Writer(path, **kwargs)

        @classmethod
        def open_reader(cls, path, **kwargs):
            return data.HDF5Dataset(path=path, **kwargs)

    with pytest.raises(RuntimeError, match="the copy has 3 episodes"):
        convert(source, tmp_path / "copy.lossy", progress=False)
    assert names_in(tmp_path) == ["in"]


def test_a_lossy_format_is_copied_as_files(tmp_path, monkeypatch):
    monkeypatch.setattr(data.registry, "FORMATS", dict(data.FORMATS))
    opened = []

    @data.register_format
    class Photos(data.Format):
        name, suffixes, reencodes_images = "photos", (".photos",), True

        @classmethod
        def detect(cls, path):
            return str(path).endswith(".photos")

        @classmethod
        def open_writer(cls, path, **kwargs):
            opened.append(path)
            Path(path).mkdir()
            return HDF5Writer(Path(path) / "x.bin", **kwargs)

        @classmethod
        def open_reader(cls, path, **kwargs):
            return data.HDF5Dataset(path=Path(path) / "x.bin", **kwargs)

        @classmethod
        def side_files(cls, path):
            return [*super().side_files(path), path.with_name(path.stem + "_extra.photos")]

    with data.open_writer(tmp_path / "a.photos") as writer:
        writer.write_episode(make_episode(0))
    (tmp_path / "a.photos.journal").write_text("noted")
    (tmp_path / "a_extra.photos").mkdir()
    (tmp_path / "a_extra.photos" / "y").write_text("extra")
    opened.clear()
    convert(tmp_path / "a.photos", tmp_path / "b.photos", dest_format=None, progress=False)
    assert opened == []
    assert (tmp_path / "b.photos" / "x.bin").read_bytes() == (tmp_path / "a.photos" / "x.bin").read_bytes()
    assert (tmp_path / "b.photos.journal").read_text() == "noted"
    assert (tmp_path / "b_extra.photos" / "y").read_text() == "extra"
    convert(tmp_path / "b.photos", tmp_path / "c.h5", progress=False)
    convert(tmp_path / "c.h5", tmp_path / "b.photos", mode="overwrite", dest_format="photos", progress=False)
    assert len(opened) == 1
    assert not (tmp_path / "b_extra.photos").exists()  # of the dataset that was replaced
    assert not (tmp_path / "b.photos.journal").exists()


def test_progress_is_shown_on_stderr(source, tmp_path, capsys):
    convert(source, tmp_path / "copy.h5")
    captured = capsys.readouterr()
    assert "episodes: 4/4" in captured.err
    assert captured.out == ""


# -- merge ------------------------------------------------------------------------------------------------------------


def test_merged_episodes_are_renumbered_in_order(tmp_path):
    sources = [
        make_source(tmp_path / "a.h5", [0, 1], env="toy", policy="random"),
        make_source(tmp_path / "b.h5", [5], env="toy", policy="expert"),
        make_source(tmp_path / "c.h5", [2, 3], env="toy", policy="random"),
    ]
    written = merge(sources, tmp_path / "all", progress=False)
    assert written == tmp_path / "all.h5"
    ds = assert_holds(written, [0, 1, 5, 2, 3])
    assert ds.get_col_data("episode_idx").tolist() == np.repeat(np.arange(5), ds.lengths).tolist()
    assert ds.metadata["env"] == "toy"
    assert "policy" not in ds.metadata
    assert [(part["name"], part["episodes"], part["metadata"]["policy"]) for part in ds.metadata["merged_from"]] == [
        ("a.h5", 2, "random"),
        ("b.h5", 1, "expert"),
        ("c.h5", 2, "random"),
    ]
    assert json.dumps(ds.metadata)
    assert data.verify(written, deep=True).ok


def test_sources_that_differ_are_refused_before_anything_is_written(tmp_path):
    base = make_source(tmp_path / "a.h5", [0])
    for name, change, message in (
        (
            "shape",
            lambda ep: {**ep, "grid": ep["grid"][:, :1]},
            r"grid: expected float32 \(2, 3\) per row, found .*\(1, 3\)",
        ),
        ("dtype", lambda ep: {**ep, "reward": ep["reward"].astype(np.float32)}, "reward: expected float64"),
        ("kind", lambda ep: {**ep, "seed": ep["policy"]}, "seed: expected int64 .*found text"),
        ("missing", lambda ep: {k: v for k, v in ep.items() if k != "grid"}, "grid: missing"),
        ("extra", lambda ep: {**ep, "new": ep["seed"]}, "new: only here"),
    ):
        with HDF5Writer(tmp_path / f"{name}.h5") as writer:
            writer.write_episode(change(make_episode(1)))
        with pytest.raises(ContractError, match=rf"(?s){name}.h5 does not match .*a.h5:.*{message}"):
            merge([base, tmp_path / f"{name}.h5"], tmp_path / "all.h5", progress=False)
    assert not [name for name in names_in(tmp_path) if "all" in name]


def test_merge_needs_two_sources_and_a_free_target(tmp_path):
    a, b = make_source(tmp_path / "a.h5", [0]), make_source(tmp_path / "b.h5", [1])
    for few in ([], [a], str(a)):
        with pytest.raises(ContractError, match="two or more"):
            merge(few, tmp_path / "all.h5")
    with pytest.raises(ContractError, match="one entry for each of 2"):
        merge([a, b], tmp_path / "all.h5", source_formats=["hdf5"])
    merge([a, b], tmp_path / "all.h5", source_formats=["hdf5", None], progress=False)
    with pytest.raises(FileExistsError):
        merge([a, b], tmp_path / "all.h5", progress=False)
    merge([b, a], tmp_path / "all.h5", mode="overwrite", progress=False)
    assert_holds(tmp_path / "all.h5", [1, 0])
    merge([a, b], a, mode="overwrite", progress=False)  # a source may be replaced
    assert_holds(a, [0, 1])


def test_a_source_that_grows_meanwhile_contributes_what_it_had(tmp_path):
    source = make_source(tmp_path / "a.h5", range(3))
    with HDF5Writer(source) as writer:
        writer.write_episode(make_episode(3))
        target = convert(source, tmp_path / "copy.h5", progress=False)
        writer.write_episode(make_episode(4))
    assert_holds(target, range(4))


WRITABLE = [
    name for name, fmt in data.FORMATS.items() if fmt.open_writer.__func__ is not data.Format.open_writer.__func__
]


@pytest.mark.parametrize("middle", WRITABLE)
def test_through_any_format_and_back(source, tmp_path, middle):
    """Numbers survive within float32, images within what their codec loses; rows and episodes stay where they are."""
    there = convert(source, tmp_path / "there", dest_format=middle, progress=False)
    back = convert(there, tmp_path / "back.h5", progress=False)
    again = convert(there, tmp_path / "again", dest_format=middle, progress=False)
    for path in (back, again):
        found, expected = load_dataset(path), load_dataset(source)
        assert found.lengths.tolist() == expected.lengths.tolist()
        for name in ("action", "reward", "grid"):
            np.testing.assert_allclose(
                found.get_col_data(name).reshape(-1), expected.get_col_data(name).reshape(-1), rtol=1e-6
            )
        images = [ds.get_row_data(np.arange(ds.num_rows))["pixels"].astype(float) for ds in (found, expected)]
        assert images[0].shape == images[1].shape
        assert found.metadata["env"] == "toy"


KEEPING = [name for name in WRITABLE if data.FORMATS[name].supports_episode_data]


@pytest.mark.parametrize("format", KEEPING)
def test_per_episode_constants_are_carried_or_dropped_with_a_warning(tmp_path, caplog, format):
    with data.open_writer(tmp_path / "a", format=format) as writer:
        for k in range(2):
            writer.write_episode({**make_episode(k), "_episode_data": {"task": f"t{k}", "mass": k / 2}})
    with data.open_writer(tmp_path / "plain", format=format) as writer:
        writer.write_episode(make_episode(2))
    expected = {"task": ["t0", "t1"], "mass": [0.0, 0.5]}
    twice = merge([tmp_path / "a", tmp_path / "a"], tmp_path / "twice", dest_format=format, progress=False)
    assert load_dataset(twice).get_episode_data([0, 1]) == expected
    assert load_dataset(twice).get_episode_data([3])["task"] == ["t1"]
    assert not caplog.records
    convert(tmp_path / "a", tmp_path / "b.h5", progress=False)
    assert "keeps no per-episode data; ['mass', 'task'] are dropped" in caplog.text
    with pytest.raises(ContractError, match="task: a per-episode constant of only one of them"):
        merge([tmp_path / "a", tmp_path / "plain"], tmp_path / "c.h5", progress=False)


def test_copying_holds_one_episode_at_a_time(tmp_path):
    """Episodes are read when the writer asks for them, not before."""
    source = make_source(tmp_path / "a.h5", range(3))
    seen = []

    class Watch:
        def stage(self, name):
            pass

        def task(self, name, total, done=0):
            return self

        def advance(self, n=1, *, steps=0, **_):
            building = tmp_path / ".b.h5.partial" / "b.h5"
            seen.append((steps, len(load_dataset(building).lengths) if building.exists() else 0))

    convert(source, tmp_path / "b.h5", progress=Watch())
    lengths = load_dataset(source).lengths.tolist()
    assert [steps for steps, _ in seen] == lengths
    assert [written for _, written in seen] == [1, 2, 3]


def test_rows_that_a_format_leaves_out_when_told_to_are_not_missed(source, tmp_path):
    lengths = load_dataset(source).lengths
    options = {"dest_format": "lerobot", "keep_last": False, "progress": False}
    steps = convert(source, tmp_path / "steps", **options)
    assert load_dataset(steps).lengths.tolist() == (lengths - 1).tolist()
    twice = merge([source, source], tmp_path / "twice", **options)
    assert load_dataset(twice).lengths.tolist() == [*(lengths - 1), *(lengths - 1)]
    again = convert(steps, tmp_path / "again", **options)  # which has nothing more to leave out
    assert load_dataset(again).lengths.tolist() == (lengths - 1).tolist()


@pytest.mark.parametrize("format", [name for name in WRITABLE if data.FORMATS[name].reencodes_images])
def test_a_dataset_whose_writer_died_is_copied_with_all_its_episodes(tmp_path, format):
    live = tmp_path / "live" / "set"
    with data.open_writer(live, format=format) as writer:
        writer.write_episodes(make_episode(k) for k in range(3))
        shutil.copytree(tmp_path / "live", tmp_path / "killed")
    copy = convert(tmp_path / "killed" / "set", tmp_path / "copy", dest_format=None, progress=False)
    assert data.detect_format(copy) is data.FORMATS[format]
    assert load_dataset(copy).get_col_data("seed").tolist() == load_dataset(live).get_col_data("seed").tolist()
    assert data.verify(copy, deep=True).ok
    assert not [name for name in names_in(tmp_path) if name.startswith(".") or name.endswith((".log", ".lock"))]
