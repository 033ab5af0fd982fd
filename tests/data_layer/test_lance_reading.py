"""Reading Lance tables: without pylance in other processes, from other file systems, beside a writer."""

import subprocess
import sys
import threading
import warnings
from pathlib import Path

import lance
import numpy as np
import pytest
import torch
from directory_episodes import make_views
from test_lance_golden import SETS, unpack

from stable_worldmodel.data import load_dataset, open_writer
from stable_worldmodel.data.formats.lance import pages
from stable_worldmodel.data.formats.lance.format import LanceDataset, remote_options
from stable_worldmodel.data.formats.lance.location import locate
from stable_worldmodel.errors import ContractError

HERE = Path(__file__).parent
EPISODES = [make_views(k) | {"_episode_data": {"k": k}} for k in range(6)]


@pytest.fixture(scope="module", params=["lance", "lance_video"])
def path(request, tmp_path_factory):
    target = tmp_path_factory.mktemp("reading") / "data"
    with open_writer(target, request.param, commit_every=3) as writer:
        writer.write_episodes(EPISODES)
    return target if request.param == "lance_video" else target.with_name("data.lance")


def in_new_process(code, *arguments):
    command = [sys.executable, "-W", "error::UserWarning", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100, cwd=HERE)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


LOADERS = """
import sys
import torch
from stable_worldmodel.data import load_dataset

def main():
    ds = load_dataset(sys.argv[1], num_steps=2, frameskip=2, cache="none")
    expected = [ds[i] for i in range(len(ds))]
    for method in ("fork", "spawn"):
        loader = torch.utils.data.DataLoader(ds, 8, num_workers=2, multiprocessing_context=method)
        for n, batch in enumerate(loader):
            for i in range(len(batch["reward"])):
                for name in ("pixels", "goal", "action", "seed"):
                    found, value = batch[name][i], expected[8 * n + i][name]
                    assert torch.equal(found.nan_to_num(), value.nan_to_num()), (method, name)
    if hasattr(ds, "get_episode_data"):
        import os
        pid = os.fork()
        if not pid:
            try:
                ds.get_episode_data([0])
            except RuntimeError as error:
                os._exit("multiprocessing_context='spawn'" not in str(error))
            os._exit(2)
        assert os.waitpid(pid, 0)[1] == 0
    print("lance" in sys.modules)

if __name__ == "__main__":
    main()
"""


def test_workers_of_a_data_loader_read_after_fork_and_spawn(path, tmp_path):
    (tmp_path / "loaders.py").write_text(LOADERS)
    command = [sys.executable, "-W", "error", str(tmp_path / "loaders.py"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "True"
    assert not done.stderr


def test_no_fork_is_warned_of_wherever_warnings_are_caught(tmp_path):
    code = """
import os, warnings
from stable_worldmodel.data.formats.lance import tables
tables.library()
for _ in range(2):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pid = os.fork()
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)
"""
    in_new_process(code, tmp_path)


def test_other_formats_never_import_pylance(tmp_path):
    code = """
import sys, os
import numpy as np
from stable_worldmodel.data import load_dataset, open_writer, detect_format, list_formats, verify
from stable_worldmodel.data.loader import Loader
rows = {"pixels": np.zeros((9, 8, 8, 3), np.uint8), "action": np.zeros((9, 2), np.float32)}
for name in ("hdf5", "folder", "video", "hf_arrow"):
    with open_writer(sys.argv[1] + "/" + name, name) as writer:
        writer.write_episode(rows)
    ds = load_dataset(sys.argv[1] + "/" + name)
    next(iter(Loader(ds, 4)))
    verify(sys.argv[1] + "/" + name)
list_formats(), detect_format(sys.argv[1] + "/none.lance")
assert "lance" not in sys.modules
if not os.fork():
    os._exit(0)
os.wait()
"""
    in_new_process(code, tmp_path)


def test_images_are_mapped_not_taken(path):
    ds = load_dataset(path, cache="none")
    values = ds._layout.frames["pixels"]._values
    assert (values._ranges[:, 0] >= 0).all()
    assert len(values._maps.paths) > 1


@pytest.mark.parametrize("name", SETS)
def test_mapped_values_are_those_of_pylance(tmp_path, name, monkeypatch):
    path = unpack(name, tmp_path)
    mapped = load_dataset(path, cache="none")
    monkeypatch.setattr(pages, "value_ranges", lambda data, column: None)
    taken = LanceDataset(path, cache="none")
    for column in ("pixels", "pixels_side"):
        if column in taken.columns:
            rows = np.random.default_rng(0).integers(0, 44, 60)
            np.testing.assert_array_equal(mapped.get_row_data(rows)[column], taken.get_row_data(rows)[column])


def test_rows_deleted_by_other_tools_are_skipped(tmp_path):
    whole = load_dataset(unpack("lance/tiny.zip", tmp_path), cache="none")
    path = tmp_path / "deleted" / "x.lance"
    lance.write_dataset(lance.dataset(str(whole.path)).to_table(), path, max_rows_per_file=20)
    lance.dataset(str(path)).delete("episode_idx = 1 or step_idx = 0")
    found = load_dataset(path, cache="none")
    assert found.lengths.tolist() == [8, 7, 14]
    np.testing.assert_array_equal(
        found.read_rows(2, 2, 6, ["pixels"])["pixels"], whole.read_rows(3, 3, 7, ["pixels"])["pixels"]
    )


def test_uris_are_read(path):
    frames = locate(path).uri("frames")
    ds = load_dataset(f"file://{frames}", num_steps=2)
    local = load_dataset(path, num_steps=2)
    batch, expected = ds.get_batch([3, 20, 3]), local.get_batch([3, 20, 3])
    assert all(
        torch.equal(batch[name].nan_to_num(), expected[name].nan_to_num())
        for name in ("pixels", "goal", "action", "seed")
    )
    assert batch["policy"] == expected["policy"]
    assert ds.get_episode_data([4]) == {"k": [4]}
    assert ds.path is None
    assert type(load_dataset(path))(uri=f"file://{frames}").num_rows == local.num_rows
    with pytest.raises(ContractError, match=r"expected a URL ending in '\.lance', or table_name="):
        LanceDataset(uri="file:///tmp")


def test_options_of_remote_stores(monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("HF_TOKEN", "secret")
    s3 = remote_options(locate("s3://bucket/a.lance"), {"timeout": "3"})
    assert s3 == {"region": "eu-west-1", "virtual_hosted_style_request": "true", "timeout": "3"}
    assert remote_options(locate("s3://bucket/a.lance"), {"region": "x"})["region"] == "x"
    assert remote_options(locate("hf://datasets/o/r/a.lance"), {}) == {"token": "secret"}
    assert remote_options(locate("/tmp/a.lance"), {}) == {}


def test_reader_follows_nothing_and_misses_nothing_while_a_writer_works(tmp_path):
    """Opened at any moment, a dataset has all episodes that were acknowledged before, and keeps them."""
    path, count, stop = tmp_path / "data", [0], threading.Event()

    def work():
        with open_writer(path, "lance", commit_every=2) as writer:
            for k in range(60):
                writer.write_episode(make_views(k, rows=3))
                count[0] = k + 1
        stop.set()

    thread = threading.Thread(target=work)
    thread.start()
    opened = []
    while not stop.is_set():
        before = count[0]
        if before:
            opened.append(load_dataset(path, cache="none"))
            assert opened[-1].num_episodes >= before
    thread.join()
    assert len(opened) > 3
    for ds in (opened[0], opened[len(opened) // 2], opened[-1]):
        k = ds.num_episodes - 1
        found = ds.read_rows(k, 0, 3)
        assert np.abs(found["pixels"].astype(int) - make_views(k, rows=3)["pixels"]).mean() < 4
        assert found["seed"].tolist() == [1000 + k] * 3


def test_file_is_read_at_most_as_far_as_it_goes():
    """Damaged metadata is refused, never followed out of the file."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        assert pages.value_ranges(memoryview(rng.bytes(int(rng.integers(40, 400))) + b"LANC"), 0) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pages.value_ranges(memoryview(b"LANC"), 0) is None


def test_damaged_pages_fall_back_or_fail(path, tmp_path):
    data = bytearray(Path(locate(path).path("frames"), "data").glob("*.lance").__next__().read_bytes())
    rng = np.random.default_rng(1)
    for _ in range(2000):
        changed = bytearray(data)
        changed[int(rng.integers(len(data) * 3 // 4, len(data)))] ^= 1 << int(rng.integers(8))
        found = pages.value_ranges(memoryview(bytes(changed)), 2)
        if found is not None:
            assert (found[0] <= found[1]).all()
            assert found[1].max(initial=0) <= len(data)


def test_a_million_rows_open_at_once(tmp_path):
    """Numbers alone; the time is measured by `benchmarks/loading.py`."""
    rows = {"action": np.zeros((50_000, 2), np.float32), "seed": np.zeros(50_000, int)}
    with open_writer(tmp_path / "data", "lance") as writer:
        writer.write_episodes(rows for _ in range(20))
    ds = load_dataset(tmp_path / "data", num_steps=4, frameskip=5)
    assert len(ds) == 20 * (50_000 - 19)
    assert ds.get_batch([0, len(ds) - 1])["action"].shape == (2, 4, 10)
