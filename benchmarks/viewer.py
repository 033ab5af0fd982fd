"""How fast the viewer opens a dataset of 20,000 episodes and answers. Prints JSON, times in milliseconds.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/viewer.py [--episodes 20000] [--rows 50] [--size 64]

Only the episodes that are looked at hold pictures, so the file is small on disk and its index as large as a real one.
The page is opened in Chromium where Playwright and a browser are installed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

LOOKED_AT = 200  # episodes
WALL_CLOCK_LIMIT = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=20_000)
    parser.add_argument("--rows", type=int, default=50)
    parser.add_argument("--size", type=int, nargs="*", default=[64, 224])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {
            f"{size} px": measure(Path(folder) / f"{size}.h5", options.episodes, options.rows, size)
            for size in options.size
        }
    print(json.dumps({"episodes": options.episodes, "rows": options.rows, **found}, indent=2))


def measure(path: Path, episodes: int, rows: int, size: int) -> dict[str, Any]:
    """All times for one file."""
    from stable_worldmodel.viewer import open_viewer

    looked_at = write(path, episodes, rows, size)
    found: dict[str, Any] = {"command until address": round(command_seconds(path) * 1e3)}
    begin = time.perf_counter()
    server = open_viewer(path)
    found["open"] = since(begin)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = Client(server.server_port)
    found["list"] = client.timed("/api/sources") + client.timed("/api/dataset/episodes")
    found["list in Chromium"] = page_milliseconds(server.url)
    found["summary"] = client.timed("/api/dataset/summary")
    rng = np.random.default_rng(0)
    frames = [f"/api/dataset/frame/pixels/{e}/{rng.integers(rows)}.jpg" for e in rng.permutation(looked_at)]
    found["frame anywhere"] = spread([client.timed(address) for address in frames])
    playing = [f"/api/dataset/frame/pixels/{looked_at[0]}/{t}.jpg" for t in range(rows)]
    found["frame while playing"] = spread([client.timed(address) for address in playing])
    strips = [f"/api/dataset/strip/pixels/{e}.jpg?count=7&height=44" for e in looked_at]
    found["strip of 7"] = spread([client.timed(address) for address in strips])
    columns = [f"/api/dataset/columns/{e}?name=action&name=reward" for e in looked_at]
    found["columns"] = spread([client.timed(address) for address in columns])
    server.shutdown()
    server.server_close()
    return found


def write(path: Path, episodes: int, rows: int, size: int) -> list[int]:
    """A file as the HDF5 format reads it; pictures in `LOOKED_AT` episodes, whose numbers are returned."""
    import h5py

    rng = np.random.default_rng(0)
    total = episodes * rows
    looked_at = sorted(rng.choice(episodes, min(LOOKED_AT, episodes), replace=False).tolist())
    with h5py.File(path, "w") as file:
        file["ep_len"] = np.full(episodes, rows)
        file["ep_offset"] = np.arange(episodes) * rows
        file["action"] = rng.normal(size=(total, 2)).astype(np.float32)
        file["reward"] = rng.normal(size=total)
        file["success"] = rng.random(total) < 0.01
        file["seed"] = np.repeat(np.arange(episodes), rows)
        file["variation.agent.color"] = np.repeat(rng.integers(0, 256, (episodes, 3), np.uint8), rows, axis=0)
        shape = (total, size, size, 3)
        pixels = file.create_dataset("pixels", shape, np.uint8, chunks=(rows, size, size, 3))
        small = rng.integers(0, 256, (rows, 8, 8, 3), np.uint8)
        picture = small.repeat(size // 8, axis=1).repeat(size // 8, axis=2)
        for episode in looked_at:
            pixels[episode * rows : (episode + 1) * rows] = np.roll(picture, episode, axis=0)
    return looked_at


def command_seconds(path: Path) -> float:
    """From starting `swm view` to its address on stdout."""
    command = [sys.executable, "-m", "stable_worldmodel.cli", "view", str(path), "--no-browser"]
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline()
        if not address.startswith("http://"):
            raise SystemExit(f"swm view said {address!r}")
        return time.perf_counter() - begin
    finally:
        process.kill()
        process.wait()


def page_milliseconds(url: str) -> float | None:
    """From asking for the page to the first row of its list, once the browser runs; None without a browser."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with suppress(ImportError):
        from playwright.sync_api import sync_playwright

        if chromium:
            with sync_playwright() as driver:
                browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
                page = browser.new_page()
                times = []
                for _ in range(3):
                    begin = time.perf_counter()
                    page.goto(url)
                    page.wait_for_selector(".row", timeout=WALL_CLOCK_LIMIT * 1e3)
                    times.append(since(begin))
                browser.close()
                return sorted(times)[1]
    return None


class Client:
    """One kept connection, as a browser has it."""

    def __init__(self, port: int):
        self._connection = http.client.HTTPConnection("127.0.0.1", port)

    def timed(self, address: str) -> float:
        begin = time.perf_counter()
        self._connection.request("GET", address)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{address}: {answer.status} {body[:200]!r}")
        return since(begin)


def since(begin: float) -> float:
    return round((time.perf_counter() - begin) * 1e3, 2)


def spread(times: list[float]) -> dict[str, float]:
    return {name: round(float(np.quantile(times, q)), 2) for name, q in (("median", 0.5), ("p95", 0.95), ("most", 1))}


if __name__ == "__main__":
    main()
