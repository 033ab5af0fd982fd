"""What a name, path, hub id or URL means, and that what was written under a name is found under it."""

import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
from episode_factory import assert_same_episode, make_episode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stable_worldmodel import data
from stable_worldmodel.data import HDF5Writer, load_dataset, new_dataset_path, open_writer
from stable_worldmodel.data.cache import inside, validate_name
from stable_worldmodel.data.remote import choose_dataset, dataset_in_url, files_of_dataset, is_hub_id
from stable_worldmodel.errors import ContractError, NotFoundError


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A cache root, with an empty working directory elsewhere; nothing reaches the network."""
    monkeypatch.setenv("STABLEWM_HOME", str(tmp_path / "root"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return data.get_cache_dir()


def record(path, k=0, **options):
    with open_writer(path, **options) as writer:
        writer.write_episode(make_episode(k))


def recorded(name, **options):
    """Which episode `record` wrote to what `name` means."""
    return int(load_dataset(name, **options).get_col_data("seed")[0]) - 1000


# -- written and found again ------------------------------------------------------------------------------------------

WRITABLE = [
    name for name, fmt in data.FORMATS.items() if fmt.open_writer.__func__ is not data.Format.open_writer.__func__
]


@pytest.mark.parametrize("format", WRITABLE)
@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("name", ["demo", "sub/demo", "v1.2", "a b", "./demo", "../demo"])
def test_a_dataset_is_found_under_the_path_it_was_written_to_in_every_format(home, format, name, absolute):
    path = str(Path.cwd() / name) if absolute else name
    record(path, 3, format=format)
    ds = load_dataset(path)
    assert ds.num_episodes == 1
    assert data.verify(path).ok
    with open_writer(path) as writer:  # goes on without being told the format
        writer.write_episode(make_episode(4))
    assert load_dataset(path).num_episodes == 2


@pytest.mark.parametrize("format", [name for name in WRITABLE if data.FORMATS[name].suffixes])
def test_the_suffix_means_the_format(home, format):
    for suffix in data.FORMATS[format].suffixes:
        record(f"demo{suffix}", 1)
        assert data.detect_format(f"demo{suffix}") is data.FORMATS[format]
        assert recorded(f"demo{suffix}") == 1


def test_a_directory_that_is_no_dataset_hides_none(home):
    for folder in (Path("pusht"), home / "pusht"):
        (folder / "notes").mkdir(parents=True)
    record(home / "datasets" / "pusht.h5", 1)
    assert recorded("pusht") == 1
    record(home / "pusht.h5", 2)
    assert recorded("pusht") == 2
    record("pusht", 3)  # written beside the directory
    assert Path("pusht.h5").is_file()
    assert recorded("pusht") == 3


def test_what_cannot_be_detected_can_be_named(home):
    record("x.h5", 1)
    Path("x.h5").rename("x.data")
    with pytest.raises(ContractError, match="no format recognises it; pass format="):
        load_dataset("x.data")
    assert recorded("x.data", format="hdf5") == 1


def test_a_format_that_the_name_would_not_find_again_is_refused(home, monkeypatch):
    monkeypatch.setattr(data.registry, "FORMATS", dict(data.FORMATS))

    @data.register_format
    class Later(data.Format):
        name, suffixes = "later", (".later",)

        @classmethod
        def detect(cls, path):
            return str(path).endswith(".later")

        @classmethod
        def open_writer(cls, path, **kwargs):
            return path

    record("x.h5", 1)
    with pytest.raises(ContractError, match=r"x.h5 exists, and 'x' means that dataset; write to 'x.later'"):
        open_writer("x", format="later")
    assert open_writer("x.later") == Path("x.later")
    assert open_writer("y", format="later") == Path("y.later")


def test_missing_hub_ids_tell_both_the_places_and_the_hub(home):
    with pytest.raises(NotFoundError, match=r"(?s)work/owner/absent\.h5.*could not be downloaded from the hub"):
        load_dataset("owner/absent")
    with pytest.raises(NotFoundError, match="was not found") as caught:
        load_dataset("absent")
    assert "downloaded" not in str(caught.value)


# -- names ------------------------------------------------------------------------------------------------------------

names = st.text(st.sampled_from(list("ab.~/\\: \0\n-")), max_size=8)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names, st.booleans())
def test_a_valid_name_stays_below_the_root(tmp_path, name, nested):
    try:
        validate_name(name, nested=nested)
    except ContractError:
        return
    path = tmp_path / name
    assert tmp_path in path.resolve().parents
    assert path.parent == tmp_path or nested
    assert "\0" not in name
    assert path.parts[len(tmp_path.parts) :] == tuple(name.split("/"))


@pytest.mark.parametrize(
    "name",
    ["", " ", ".", "..", "...", "/x", "../x", "a/../x", "a/..", "a//b", "a/", "a\0b", "a\nb", "a\\b", "~", "C:x", None],
)
def test_names_that_are_no_names_are_refused_wherever_they_become_paths(home, name):
    for refuse in (validate_name, new_dataset_path, data.delete_dataset, data.delete_model):
        with pytest.raises(ContractError, match="non-empty"):
            refuse(name)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names)
def test_deleting_never_touches_what_lies_outside_or_deeper(home, name):
    outside, inner = home.parent / "a", home / "b" / "a"
    for path in (outside, inner, home / "kept.h5"):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    for delete in (data.delete_dataset, data.delete_model):
        with contextlib.suppress(ContractError):
            assert delete(name) is False
    assert outside.exists()
    assert inner.exists()
    assert (home / "kept.h5").exists()


def test_symbolic_links_out_of_the_root_are_followed_only_by_their_path(home, tmp_path, monkeypatch):
    record(tmp_path / "scratch" / "big.h5", 1)
    (home / "big.h5").symlink_to(tmp_path / "scratch" / "big.h5")
    (home / "folder").symlink_to(tmp_path / "scratch")
    for refuse in (lambda: recorded("big"), lambda: recorded("folder/big"), lambda: data.verify("big.h5")):
        with pytest.raises(ContractError, match="leads out of"):
            refuse()
    assert recorded(home / "big.h5") == 1  # a path is meant as it stands
    for refuse in (lambda: data.delete_dataset("big"), lambda: data.delete_dataset("folder")):
        with pytest.raises(ContractError, match="leads out of"):
            refuse()
    with pytest.raises(ContractError, match="leads out of"):
        new_dataset_path("folder/x")
    with pytest.raises(ContractError, match="leads out of"):
        inside(home, "big.h5")
    (home / "alias.h5").symlink_to(home / "own.h5")
    record(home / "own.h5", 2)
    assert data.delete_dataset("alias.h5")  # the link goes, what it points to stays
    assert recorded("own") == 2
    assert (tmp_path / "scratch" / "big.h5").exists()


def test_a_nul_character_is_refused_before_the_system_sees_it(home):
    for call in (load_dataset, open_writer, data.dataset_path, data.verify):
        with pytest.raises(ContractError, match="NUL"):
            call("a\0b")


# -- elsewhere --------------------------------------------------------------------------------------------------------


@pytest.fixture
def episodes_file(tmp_path):
    with HDF5Writer(tmp_path / "made" / "tiny.h5") as writer:
        writer.write_episodes(make_episode(k) for k in range(3))
    return (tmp_path / "made" / "tiny.h5").read_bytes()


def test_a_url_of_a_folder_means_the_dataset_in_it(episodes_file):
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/run/tiny.h5", episodes_file)
    memory.pipe("/bucket/run/readme.md", b"")
    memory.pipe("/bucket/empty/readme.md", b"")
    for url in ("memory://bucket/run/tiny.h5", "memory://bucket/run", "memory://bucket/run/"):
        ds = load_dataset(url, num_steps=2)
        for k, found in enumerate(ds.iter_episodes()):
            assert_same_episode(found, make_episode(k))
    assert dataset_in_url("memory://bucket/empty") == "memory://bucket/empty"
    with pytest.raises(ContractError, match="no format recognises it"):
        load_dataset("memory://bucket/empty")


def test_a_file_url_is_read_in_place(tmp_path, episodes_file):
    assert load_dataset(f"file://{tmp_path}/made/tiny.h5").num_episodes == 3
    assert load_dataset(f"file://{tmp_path}/made").num_episodes == 3


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a client asks for to list and download a dataset repository."""

    COMMIT = "0123456789abcdef0123456789abcdef01234567"
    repositories: ClassVar[dict[str, dict[str, bytes]]] = {}
    wrong_sizes = False
    requests: ClassVar[list[str]] = []

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, body):
        self.requests.append(self.path)
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "datasets"]:
            self._describe("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main")
        elif parts[0] == "datasets" and parts[3] == "resolve":
            self._send(self.repositories["/".join(parts[1:3])].get("/".join(parts[5:])), body)
        else:
            self.send_error(404)

    def _describe(self, repo, revision):
        files = self.repositories.get(repo)
        if files is None or revision not in ("main", "v1", self.COMMIT):
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            return
        siblings = [{"rfilename": name, "size": len(content) + self.wrong_sizes} for name, content in files.items()]
        self._send(json.dumps({"id": repo, "sha": self.COMMIT, "siblings": siblings}).encode(), True)

    def _send(self, content, body):
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def hub(home, monkeypatch, episodes_file):
    pytest.importorskip("huggingface_hub")
    Hub.repositories = {
        "owner/sets": {"README.md": b"#", "tiny.h5": episodes_file, "zzz.h5": b"", ".gitattributes": b""}
    }
    Hub.wrong_sizes, Hub.requests = False, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield Hub
    server.shutdown()
    server.server_close()


def test_a_hub_repository_is_downloaded_once_and_says_where_it_came_from(hub, home):
    ds = load_dataset("owner/sets", num_steps=2)
    for k, found in enumerate(ds.iter_episodes()):
        assert_same_episode(found, make_episode(k))
    assert ds.metadata["hub"] == {"repo": "owner/sets", "revision": "main", "commit": hub.COMMIT}
    folder = home / "datasets" / "owner--sets"
    assert [path.name for path in folder.iterdir()] == ["tiny.h5"]
    asked = len(hub.requests)
    assert load_dataset("owner/sets").num_episodes == 3
    assert load_dataset("owner--sets").metadata["hub"]["commit"] == hub.COMMIT
    assert len(hub.requests) == asked
    assert load_dataset("owner/sets@v1").metadata["hub"]["revision"] == "v1"
    assert data.list_datasets() == ["owner--sets", "owner--sets@v1"]
    assert data.delete_dataset("owner--sets")
    assert sorted(path.name for path in folder.parent.iterdir()) == ["owner--sets@v1", "owner--sets@v1.hub.json"]


def test_a_broken_download_is_never_a_dataset_and_is_continued(hub, home):
    hub.wrong_sizes = True
    with pytest.raises(NotFoundError, match=r"tiny.h5 has \d+ bytes: expected"):
        load_dataset("owner/sets")
    assert data.list_datasets() == []
    assert not (home / "datasets" / "owner--sets").exists()
    hub.wrong_sizes = False
    hub.repositories["owner/sets"]["renamed.h5"] = hub.repositories["owner/sets"].pop("tiny.h5")
    assert load_dataset("owner/sets").num_episodes == 3  # nothing of the earlier attempt is left
    assert [path.name for path in (home / "datasets").iterdir() if "partial" in path.name] == []


def test_repositories_without_a_dataset_are_explained(hub, home):
    hub.repositories["owner/robot"] = {"meta/info.json": b"{}", "data/x.parquet": b""}
    with pytest.raises(ContractError, match=r"holds no dataset, only .'data', 'meta'.; .*'lerobot://owner/robot'"):
        load_dataset("owner/robot")
    with pytest.raises(NotFoundError, match="could not be downloaded"):
        load_dataset("owner/other")
    with pytest.raises(NotFoundError, match="could not be downloaded"):
        load_dataset("owner/sets@nowhere")


def test_local_datasets_come_before_the_hub(hub, home):
    record(home / "owner" / "sets.h5", 5)
    assert recorded("owner/sets") == 5
    assert not hub.requests


def test_hub_ids_are_told_from_paths():
    for name in ("owner/repo", "a.b/c-d_e", "owner/repo@main", "owner/repo@refs/pr/1"):
        assert is_hub_id(name)
    for name in (
        "repo",
        "/owner/repo",
        "./repo",
        "../repo",
        "a/b/c",
        "a/..",
        "a/b@../x",
        "a b/c",
        "a/b\0",
        Path("a/b"),
    ):
        assert not is_hub_id(name)


def test_the_dataset_among_files_is_chosen_by_kind_then_name():
    assert choose_dataset(["b.h5", "a.h5", "z.lance", "y_episodes.lance"]) == "z.lance"
    assert choose_dataset(["b.hdf5", "a.h5", "c.txt"]) == "a.h5"
    assert choose_dataset(["c.txt"]) is None
    tables = {"x.lance/data/1": 1, "x_videos.lance/data/1": 1, "y.lance/2": 1, "README.md": 1}
    assert files_of_dataset(tables, "o/r") == ["x.lance/data/1", "x_videos.lance/data/1"]
    folder = {"ep_len.npz": 1, "pixels/ep_0_step_0.jpeg": 1, "README.md": 1, ".gitattributes": 1}
    assert files_of_dataset(folder, "o/r") == ["ep_len.npz", "pixels/ep_0_step_0.jpeg"]
