"""What the viewer's server answers, over real connections."""

from __future__ import annotations

import http.client
import io
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from stable_worldmodel.data import convert, load_dataset, open_writer
from stable_worldmodel.errors import ContractError, MissingKeyError, NotFoundError
from stable_worldmodel.viewer import DatasetSource, ViewerServer, open_sources, open_viewer
from stable_worldmodel.viewer.frames import Cache


def ask(server: ViewerServer, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body, answer.headers


def ask_json(server: ViewerServer, path: str) -> Any:
    status, body, _ = ask(server, path)
    assert status == 200, body
    return json.loads(body)


def picture(server: ViewerServer, path: str) -> np.ndarray:
    status, body, headers = ask(server, path)
    assert (status, headers["Content-Type"]) == (200, "image/jpeg"), body
    return np.asarray(Image.open(io.BytesIO(body)))


def longest(server: ViewerServer) -> tuple[int, int]:
    """The longest episode and its rows."""
    lengths = ask_json(server, "/api/dataset/episodes")["length"]
    return lengths.index(max(lengths)), max(lengths)


def test_a_run_has_its_dataset_and_its_videos(server: ViewerServer) -> None:
    found = {source["name"]: source for source in ask_json(server, "/api/sources")["sources"]}
    assert list(found) == ["dataset", "random"]
    assert found["dataset"]["episodes"] == 30
    assert found["dataset"]["images"] == ["pixels", "goal"]
    assert {"reward", "action", "state"} <= set(found["dataset"]["columns"])
    assert found["random"] | {"title": ""} == {
        "name": "random", "title": "", "episodes": 4, "images": ["video"], "columns": []
    }  # fmt: skip


def test_the_index_and_the_summary_are_those_of_the_recording(server: ViewerServer, run: Path) -> None:
    dataset = load_dataset(run / "dataset.h5")
    assert ask_json(server, "/api/dataset/episodes")["length"] == dataset.lengths.tolist()
    summary = ask_json(server, "/api/dataset/summary")
    assert summary["seed"] == list(range(30))
    for episode in (0, 7, 29):
        rewards = dataset.read_rows(episode, 0, int(dataset.lengths[episode]), ["reward"])["reward"]
        assert summary["return"][episode] == pytest.approx(np.nansum(rewards))


def test_videos_are_summarised_by_their_results(server: ViewerServer, run: Path) -> None:
    results = json.loads((run / "random.json").read_text())["values"]
    assert ask_json(server, "/api/random/episodes")["length"] == [length + 1 for length in results["episode_lengths"]]
    summary = ask_json(server, "/api/random/summary")
    assert summary["return"] == results["episode_returns"]
    assert summary["success"] == [float(success) for success in results["episode_successes"]]


def test_columns_are_the_stored_numbers_and_missing_ones_null(server: ViewerServer, run: Path) -> None:
    dataset = load_dataset(run / "dataset.h5")
    rows = dataset.read_rows(3, 0, int(dataset.lengths[3]), ["action", "state"])
    found = ask_json(server, "/api/dataset/columns/3?name=action&name=state")
    assert found["action"][0][-1] is None  # the filler of the last row
    np.testing.assert_array_equal(found["action"][0][:-1], rows["action"][:-1, 0])
    np.testing.assert_array_equal(found["state"][0], rows["state"][:, 0])


def test_frames_are_the_stored_images_in_every_order(server: ViewerServer) -> None:
    episode, length = longest(server)
    for row in [7, *range(length), 0, length - 1]:
        image = picture(server, f"/api/dataset/frame/pixels/{episode}/{row}.jpg")
        assert image.shape == (8 * 16, 8 * 24, 3)  # enlarged by a whole factor
        assert np.abs(image.astype(int) - (row + 1)).max() <= 2  # the toy draws its step
    assert picture(server, "/api/dataset/frame/goal/5/0.jpg").max() <= 2


def test_frames_of_videos_are_those_of_the_evaluation(server: ViewerServer) -> None:
    lengths = ask_json(server, "/api/random/episodes")["length"]
    for episode, length in enumerate(lengths):
        image = picture(server, f"/api/random/frame/video/{episode}/{length - 1}.jpg")
        assert abs(float(image.mean()) - length) <= 3


def test_strips_show_an_episode_from_begin_to_end(server: ViewerServer) -> None:
    episode, length = longest(server)
    strip = picture(server, f"/api/dataset/strip/pixels/{episode}.jpg?count=3&height=32")
    assert strip.shape == (32, 3 * 48 + 2 * 2, 3)
    assert strip[:, :40].mean() == pytest.approx(1, abs=3)
    assert strip[:, -40:].mean() == pytest.approx(length, abs=3)


def test_many_requests_at_once_get_their_own_frames(server: ViewerServer) -> None:
    lengths = ask_json(server, "/api/dataset/episodes")["length"]
    wanted = [(e, t) for e in range(12) for t in range(lengths[e])]

    def fetch(place: tuple[int, int]) -> float:
        return float(picture(server, f"/api/dataset/frame/pixels/{place[0]}/{place[1]}.jpg").mean())

    with ThreadPoolExecutor(8) as pool:
        shades = list(pool.map(fetch, wanted))
    assert shades == pytest.approx([t + 1 for _, t in wanted], abs=2)


@pytest.mark.parametrize("format", ["folder", "video", "lance"])
def test_every_format_can_be_looked_at(run: Path, tmp_path: Path, format: str) -> None:
    convert(run / "dataset.h5", tmp_path / f"copy-{format}", dest_format=format, progress=False)
    source = DatasetSource(tmp_path / f"copy-{format}")
    one = DatasetSource(run / "dataset.h5")
    np.testing.assert_array_equal(source.lengths, one.lengths)
    np.testing.assert_allclose(source.summary()["return"], one.summary()["return"])
    longest = int(one.lengths.argmax())
    for rows in ([0, 2, 5], [1, 2, 3]):
        found = source.read_images("pixels", longest, rows)
        assert np.abs(found.astype(int) - one.read_images("pixels", longest, rows)).max() <= 3


def test_factors_of_variation_are_one_number_each(tmp_path: Path) -> None:
    with open_writer(tmp_path / "walks.h5") as writer:
        for k in range(3):
            color, size = np.tile(np.uint8([k, 2, 3]), (4, 1)), np.full(4, 0.5 * k)
            success = np.array([False, k == 1, False, False])
            writer.write_episode({"variation.color": color, "variation.size": size, "success": success})
    summary = DatasetSource(tmp_path / "walks.h5").summary()
    assert summary["variation.color[0]"].tolist() == [0, 1, 2]
    assert summary["variation.size"].tolist() == [0, 0.5, 1]
    assert summary["success"].tolist() == [0, 1, 0]
    assert "return" not in summary


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])
def test_only_get_is_allowed(server: ViewerServer, method: str) -> None:
    status, _, headers = ask(server, "/", method)
    assert (status, headers["Allow"]) == (405, "GET")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", ""])
def test_other_hosts_are_refused(server: ViewerServer, host: str) -> None:
    status, body, _ = ask(server, "/api/sources", Host=host.format(port=server.server_port))
    assert status == 403
    assert b"dataset" not in body


def test_a_request_without_host_is_refused(server: ViewerServer) -> None:
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as connection:
        connection.sendall(b"GET /api/sources HTTP/1.0\r\n\r\n")
        assert b" 403 " in connection.recv(200)


def test_localhost_is_the_same_machine(server: ViewerServer) -> None:
    assert ask(server, "/api/sources", Host=f"localhost:{server.server_port}")[0] == 200


def test_the_server_listens_on_this_machine_only(server: ViewerServer) -> None:
    assert server.server_address[0] == "127.0.0.1"


def test_answers_forbid_everything_from_elsewhere(server: ViewerServer) -> None:
    for path in ("/", "/static/app.js", "/api/sources", "/nothing"):
        headers = ask(server, path)[2]
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/nothing", 404, "no such page"),
        ("/static/server.py", 404, "no file"),
        ("/static/../server.py", 404, "no such page"),
        ("/static/%2e%2e%2fserver.py", 404, "no such page"),
        ("/api/other/episodes", 404, "no source 'other'; there are dataset, random"),
        ("/api/dataset/frame/depth/0/0.jpg", 404, "no column 'depth'; there are pixels, goal"),
        ("/api/dataset/frame/..%2f..%2fetc/0/0.jpg", 404, "no column"),
        ("/api/dataset/frame/pixels/99/0.jpg", 404, "no episode 99: there are 0..29"),
        ("/api/dataset/frame/pixels/0/99.jpg", 400, "no row 99"),
        ("/api/dataset/frame/pixels/-1/0.jpg", 404, "no such page"),
        ("/api/dataset/columns/99?name=action", 404, "no episode 99"),
        ("/api/dataset/columns/0?name=pixels", 404, "no column 'pixels'"),
        ("/api/random/columns/0?name=action", 404, "there are none"),
        ("/api/dataset/strip/pixels/0.jpg?count=1000", 400, "expected 1..16"),
        ("/api/dataset/strip/pixels/0.jpg?height=x", 400, "expected a whole number"),
    ],
)
def test_wrong_addresses_are_explained(server: ViewerServer, path: str, status: int, message: str) -> None:
    found, body, _ = ask(server, path)
    assert found == status
    assert message in json.loads(body)["error"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60))
def test_no_address_breaks_the_server(server: ViewerServer, path: str) -> None:
    for address in (f"/{path}", f"/api/dataset/{path}", f"/api/dataset/frame/{path}/0/0.jpg"):
        assert ask(server, address)[0] in (200, 400, 404)


def test_a_busy_or_impossible_port_is_explained(server: ViewerServer, run: Path) -> None:
    with pytest.raises(ContractError, match=f"port {server.server_port} cannot be used: Address already in use"):
        open_viewer(run, server.server_port)
    with pytest.raises(ContractError, match="port=70000"):
        open_viewer(run, 70000)


def test_places_without_anything_to_see_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="'absent' was not found"):
        open_sources("absent")
    (tmp_path / "bare").mkdir()
    results = json.loads((run / "random.json").read_text())
    (tmp_path / "bare" / "random.json").write_text(json.dumps(results))
    with pytest.raises(ContractError, match="neither a dataset nor videos"):
        open_sources(tmp_path / "bare")
    (tmp_path / "text.txt").write_text("no dataset")
    with pytest.raises(ContractError, match="no format recognises it"):
        open_sources(tmp_path / "text.txt")


def test_reading_checks_names(run: Path) -> None:
    source = DatasetSource(run / "dataset.h5")
    with pytest.raises(MissingKeyError, match="no column 'depth'"):
        source.read_images("depth", 0, [0])
    with pytest.raises(MissingKeyError, match="no column 'policy'"):  # text
        source.read_columns(0, ["policy"])


# -- the cache --------------------------------------------------------------------------------------------------------


def test_the_cache_forgets_what_was_used_longest_ago() -> None:
    cache = Cache(30)
    for key in "abc":
        cache.put(key, bytes(10))
    assert cache.get("a") is not None  # so b is the oldest now
    cache.put("d", bytes(10))
    assert [key for key in "abcd" if cache.get(key) is not None] == ["a", "c", "d"]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), max_size=40))
def test_the_cache_never_grows_beyond_its_limit(puts: list[tuple[int, int]]) -> None:
    cache, latest = Cache(100), {}
    for key, size in puts:
        cache.put(key, bytes(size))
        latest[key] = bytes(size)
        held = [value for k in range(6) if (value := cache.get(k)) is not None]
        assert sum(map(len, held)) <= 100
        assert cache.get(key) == latest[key]


def test_the_cache_can_be_used_from_many_threads() -> None:
    cache = Cache(1000)

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for key, size in rng.integers(1, 50, (500, 2)).tolist():
            cache.put(key, bytes(size))
            cache.get(size)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(len(value) for key in range(50) if (value := cache.get(key)) is not None) <= 1000
