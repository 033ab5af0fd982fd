"""Videos of episodes: any frame is found, and equal frames give equal files."""

import io
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from directory_episodes import make_views
from hypothesis import given, settings
from hypothesis import strategies as st

from stable_worldmodel.data import detect_format, load_dataset, open_writer
from stable_worldmodel.data.formats.folder import VideoDataset
from stable_worldmodel.data.formats.shared.mp4 import decode_frames, encode_video, index_video
from stable_worldmodel.errors import ContractError

HERE = Path(__file__).parent


@pytest.fixture
def path(tmp_path):
    return tmp_path / "set"


def counting(rows, height=32, width=48, channels=3):
    """Frames whose number can be read in them."""
    frames = np.zeros((rows, height, width, channels), np.uint8)
    for i in range(rows):
        for bit in range(8):
            frames[i, :, bit * width // 8 : (bit + 1) * width // 8] = 230 if i >> bit & 1 else 20
    return frames


def read_numbers(frames):
    width = frames.shape[2]
    centres = [(2 * bit + 1) * width // 16 for bit in range(8)]
    bits = frames[:, frames.shape[1] // 2, centres, 0] > 125
    return (bits << np.arange(8)).sum(axis=1).tolist()


def decode(data, wanted):
    index, out = index_video(data), {}
    decode_frames(
        index, lambda at, size: data[at : at + size], np.array(wanted), lambda n, image: out.update({n: image.copy()})
    )
    return np.stack([out[n] for n in wanted])


def foreign_video(frames, **options):
    """An MP4 as other programs make it."""
    data = io.BytesIO()
    with av.open(data, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10, options=options)
        stream.pix_fmt, stream.width, stream.height = "yuv420p", frames.shape[2], frames.shape[1]
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame).reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    return data.getvalue()


FRAMES = counting(60)
VIDEOS = {
    "ours": encode_video(FRAMES),
    "one key frame": encode_video(FRAMES, gop=60),
    "only key frames": encode_video(FRAMES, gop=1),
    "with b-frames": foreign_video(FRAMES, bf="3", g="12"),
    "open groups": foreign_video(FRAMES, bf="3", g="12", **{"x264-params": "open-gop=1:b-pyramid=2"}),
    "defaults": foreign_video(FRAMES),
}


@settings(max_examples=25, deadline=None)
@given(wanted=st.lists(st.integers(0, 59), min_size=1, max_size=20, unique=True))
@pytest.mark.parametrize("kind", VIDEOS)
def test_any_frames_are_found(kind, wanted):
    assert read_numbers(decode(VIDEOS[kind], wanted)) == wanted


@pytest.mark.parametrize("kind", VIDEOS)
def test_a_frame_costs_its_group_of_pictures(kind):
    data, sizes = VIDEOS[kind], []
    index = index_video(data)

    def read(at, size):
        sizes.append(size)
        return data[at : at + size]

    decode_frames(index, read, np.array([40]), lambda n, image: None)
    groups = {"ours": 2, "only key frames": 1, "with b-frames": 16, "open groups": 28}
    assert sum(sizes) <= np.sort(index.sizes)[-groups.get(kind, 60) :].sum() * 1.2


@pytest.mark.parametrize("missing", [-1, 60, 10_000])
def test_a_frame_that_is_not_there_is_an_error(missing):
    with pytest.raises(ContractError, match="holds 60 frames"):
        decode(VIDEOS["ours"], [missing])


@pytest.mark.parametrize("size", [(16, 16), (17, 16), (5, 3), (1, 1), (2, 50)])
@pytest.mark.parametrize("channels", [1, 3])
def test_nothing_is_padded_or_rescaled(size, channels):
    frames = np.broadcast_to(np.arange(4, dtype=np.uint8)[:, None, None, None] * 40 + 20, (4, *size, channels))
    data = encode_video(frames)
    assert index_video(data).shape == (*size, channels)
    assert np.abs(decode(data, range(4)).astype(int) - frames).max() <= 4


def test_other_decoders_play_them():
    with av.open(io.BytesIO(VIDEOS["ours"])) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert read_numbers(frames) == list(range(60))


def test_equal_frames_give_equal_bytes_whatever_is_in_memory(tmp_path):
    """x264 can be made to decide by what it finds in memory that it has not written, and then a resumed recording would
    differ from an uninterrupted one."""
    code = (
        "import hashlib, sys\n"
        "from directory_episodes import make_views\n"
        "from stable_worldmodel.data.formats.shared.mp4 import encode_video\n"
        "for k in range(12):\n"
        "    for side, gop in ((7, 2), (16, 250), (32, 2), (48, 2), (96, 10)):\n"
        "        for name in ('pixels', 'goal'):\n"
        "            frames = make_views(k, rows=12, side=side)[name]\n"
        "            print(hashlib.md5(encode_video(frames, gop=gop)).hexdigest())\n"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=HERE, env={**os.environ, "MALLOC_PERTURB_": value},
            capture_output=True, text=True, check=True,
        ).stdout
        for value in ("0", "85", "255")
    }  # fmt: skip
    assert len(found) == 1


@pytest.mark.parametrize("options", [{"gop": 0}, {"fps": 0}])
def test_options_are_checked(path, options):
    with pytest.raises(ContractError, match="expected both >= 1"):
        open_writer(path, "video", **options)


def test_an_unknown_preset_is_an_error_that_leaves_nothing(path):
    with open_writer(path, "video", preset="warp") as writer, pytest.raises(ContractError, match="cannot be encoded"):
        writer.write_episode(make_views(0))
    assert list(path.parent.iterdir()) == []


def test_quality_and_size_can_be_chosen(path, tmp_path):
    sizes, errors = [], []
    for name, options in (("small", {"crf": 40, "gop": 50}), ("good", {"crf": 5, "gop": 1})):
        with open_writer(tmp_path / name, "video", **options) as writer:
            writer.write_episode(make_views(0, rows=30, side=64))
        sizes.append((tmp_path / name / "pixels/ep_0.mp4").stat().st_size)
        found = load_dataset(tmp_path / name).read_rows(0, 0, 30)["pixels"]
        errors.append(np.abs(found.astype(int) - make_views(0, rows=30, side=64)["pixels"]).mean())
    assert sizes[0] < sizes[1] / 4
    assert errors[0] > errors[1]


def test_image_columns_can_be_chosen(path):
    with open_writer(path, "video") as writer:
        writer.write_episode(make_views(0))
    assert detect_format(path).name == "video"
    assert "goal" not in VideoDataset(path=path, video_keys=["pixels"]).column_names
    with pytest.raises(ContractError, match=r"top.* is missing"):
        VideoDataset(path=path, video_keys=["top"])
    with pytest.raises(TypeError, match="VideoDataset needs `name` or `path`"):
        VideoDataset()


def test_a_constant_column_is_one_group_of_pictures(path):
    with open_writer(path, "video") as writer:
        writer.write_episode(make_views(0, rows=30))
    data = {name: (path / name / "ep_0.mp4").read_bytes() for name in ("pixels", "goal")}
    assert index_video(data["goal"]).keys.sum() == 1
    assert index_video(data["pixels"]).keys.sum() == 15
    assert len(index_video(data["goal"])) == 30  # other readers find a frame for each row
