"""What datasets, episodes and variation spaces look like in a notebook."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stable_worldmodel import spaces
from stable_worldmodel.data import load_dataset, open_writer
from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.utils.notebook import html_filmstrip, html_table
from stable_worldmodel.world.episode import Episode


@pytest.fixture
def dataset(tmp_path: Path) -> Any:
    with open_writer(tmp_path / "walks.h5") as writer:
        for rows in (5, 9):
            pixels = np.arange(rows, dtype=np.uint8)[:, None, None, None] * np.ones((1, 7, 9, 3), np.uint8)
            writer.write_episode({"pixels": pixels, "action": np.zeros((rows, 2), np.float32), "note": ["<b>"] * rows})
    return load_dataset(tmp_path / "walks.h5", num_steps=2, frameskip=2)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was displayed, as a notebook would get it."""
    display = pytest.importorskip("IPython.display")
    found: list[Any] = []
    monkeypatch.setattr(display, "display", found.append)
    return found


class Text(HTMLParser):
    """The text of a page, and its pictures."""

    def __init__(self, html: str):
        super().__init__()
        self.text, self.open = "", []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open += [] if tag == "img" else [tag]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"


def pictures(html: str) -> list[np.ndarray]:
    found = re.findall(r'src="data:image/png;base64,([^"]*)"', html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in found]


def test_a_dataset_shows_its_columns(dataset: Any) -> None:
    text = Text(dataset._repr_html_()).text
    for part in ("2 episodes", "14 rows", "5 to 9 rows each", "pixels", "uint8 (7, 9, 3)", "float32 (2,)", "text"):
        assert part in text


def test_an_episode_shows_a_filmstrip_from_begin_to_end(dataset: Any) -> None:
    episode = dataset.episode(1)
    html = episode._repr_html_()
    assert "Episode 1 of 2 · 9 rows" in Text(html).text
    (strip,) = pictures(html)
    assert strip.shape[0] == 72
    assert (strip[0, 0].tolist(), strip[0, -1].tolist()) == ([0, 0, 0], [8, 8, 8])
    assert len(episode) == 9
    assert episode["note"][0] == "<b>"
    with pytest.raises(ContractError, match="episode 2"):
        dataset.episode(2)


def test_an_episode_is_played_as_a_video(dataset: Any, shown: list[Any]) -> None:
    av = pytest.importorskip("av")
    dataset.episode(1).show(fps=5)
    (video,) = shown
    assert video.embed
    with av.open(io.BytesIO(base64.b64decode(video.data) if isinstance(video.data, str) else video.data)) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 5
    assert len(frames) == 9
    assert frames[0].shape == (8, 10, 3)  # sides made even
    assert abs(int(frames[8].mean()) - 8) <= 2
    assert "autoplay" in video._repr_html_()


def test_without_av_an_episode_is_a_filmstrip(dataset: Any, shown: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    dataset.episode(1).show()
    assert len(pictures(shown[0].data)) == 1


def test_a_rollout_shows_what_it_recorded(shown: list[Any]) -> None:
    pixels = np.full((4, 8, 8, 3), 200, np.uint8)
    episode = Episode(3, 7, 3, 1.5, True, True, False, columns={"pixels": pixels, "label": ["a"] * 4})
    html = episode._repr_html_()
    assert "Episode 3, seed 7: success, return 1.5 · 4 rows" in Text(html).text
    assert len(pictures(html)) == 1
    episode.show("pixels")
    assert len(shown) == 1
    bare = Episode(0, None, 3, 0.0, False, False, True)
    assert pictures(bare._repr_html_()) == []
    with pytest.raises(ContractError, match="episode 0 has no images to show; its columns are none"):
        bare.show()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda episode: episode.show("action"), MissingKeyError, "no image column 'action'; there are"),
        (lambda episode: episode.show(fps=0), ContractError, "fps=0"),
    ],
)
def test_what_cannot_be_shown_is_explained(
    dataset: Any, call: Callable[[Any], None], error: type[Exception], message: str
) -> None:
    pytest.importorskip("IPython")
    with pytest.raises(error, match=message):
        call(dataset.episode(0))


def test_without_ipython_the_extra_is_named(dataset: Any) -> None:
    code = (
        "import sys; sys.modules['IPython'] = None\n"
        "from stable_worldmodel.data import load_dataset\n"
        f"load_dataset({str(dataset.path)!r}).episode(0).show()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingDependencyError" in done.stderr
    assert "stable-worldmodel[view]" in done.stderr


def test_a_variation_space_shows_ranges_defaults_and_values() -> None:
    space = spaces.Dict(
        {
            "agent": spaces.Dict(
                {"color": spaces.RGBBox(init_value=(255, 0, 0)), "shape": spaces.Discrete(3, start=1)}
            ),
            "size": spaces.Box(0.5, 2.0, (2,), np.float32, init_value=(1.0, 1.5)),
            "doors": spaces.MultiDiscrete([2, 4], init_value=[0, 1]),
        }
    )
    space.set_value({"size": [2.0, 0.5]})
    text = Text(space._repr_html_()).text
    for part in ("4 factors", "agent.color", "RGBBox", "0 to 255", "255, 0, 0", "1 to 3", "0.5 to 2", "1, 1.5"):
        assert part in text
    assert "2, 0.5" in text
    assert "0 to 1, 3" in text
    assert "Discrete" in Text(space["agent"]["shape"]._repr_html_()).text


def test_tables_escape_and_filmstrips_stay_narrow() -> None:
    assert "<script>" not in html_table(("<script>",), [("<script>", "<script>")], "<script>")
    (strip,) = pictures(html_filmstrip([np.zeros((10, 40, 1), np.uint8)] * 50))
    assert strip.shape[1] <= 960
    (gray,) = pictures(html_filmstrip([np.full((200, 200, 4), 7, np.uint8)]))
    assert gray.shape == (72, 72, 3)
    assert (gray == 7).all()
