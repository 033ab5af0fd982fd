"""Videos hold exactly the frames of their episode, padded and never rescaled."""

import numpy as np
import pytest

from stable_worldmodel.errors import ContractError
from stable_worldmodel.policy import RandomPolicy
from stable_worldmodel.world import World
from stable_worldmodel.world.video import VideoWriter, panels, write_video

av = pytest.importorskip("av")


def frames_of(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_frames_come_back_in_order_and_size(tmp_path):
    shades = [10, 80, 150, 220]
    write_video(tmp_path / "v.mp4", (np.full((32, 48, 3), shade, np.uint8) for shade in shades))
    frames = frames_of(tmp_path / "v.mp4")
    assert [frame.shape for frame in frames] == [(32, 48, 3)] * 4
    np.testing.assert_allclose([frame.mean() for frame in frames], shades, atol=3)


@pytest.mark.parametrize(
    ("shape", "padded"), [((15, 17, 3), (16, 18)), ((16, 17, 1), (16, 18)), ((15, 16, 4), (16, 16))]
)
def test_odd_sizes_grey_and_rgba_are_padded_and_converted(tmp_path, shape, padded):
    write_video(tmp_path / "v.mp4", [np.full(shape, 200, np.uint8)])
    assert frames_of(tmp_path / "v.mp4")[0].shape[:2] == padded


def test_gifs_are_written_too(tmp_path):
    write_video(tmp_path / "v.gif", [np.full((8, 8, 3), shade, np.uint8) for shade in (0, 255)])
    assert len(frames_of(tmp_path / "v.gif")) == 2


def test_a_file_is_finished_when_the_block_raises(tmp_path):
    def frames():
        yield np.zeros((16, 16, 3), np.uint8)
        raise OSError("stop")

    with pytest.raises(OSError, match="stop"):
        write_video(tmp_path / "v.mp4", frames())
    assert len(frames_of(tmp_path / "v.mp4")) == 1


def test_no_frames_no_file(tmp_path):
    write_video(tmp_path / "v.mp4", [])
    assert not (tmp_path / "v.mp4").exists()


def test_wrong_frames_and_names_are_refused(tmp_path):
    with pytest.raises(ContractError, match=r"\.avi"):
        VideoWriter(tmp_path / "v.avi")
    with VideoWriter(tmp_path / "v.mp4") as video:
        video.write(np.zeros((16, 16, 3), np.uint8))
        with pytest.raises(ContractError, match="changed"):
            video.write(np.zeros((18, 16, 3), np.uint8))
        with pytest.raises(ContractError, match="uint8"):
            video.write(np.zeros((16, 16, 3)))


def test_panels_are_labelled_and_enlarged_by_whole_factors():
    row = panels([np.zeros((64, 64, 3), np.uint8)] * 3, ["a", "b", "c"], min_height=160)
    assert row.shape == (192 + 24, 3 * 192 + 2 * 4, 3)


def test_evaluation_videos_have_one_frame_per_row_of_their_episode(tmp_path):
    with World("toy/Walk-v0", 3, (16, 16)) as world:
        world.set_policy(RandomPolicy(seed=0))
        results = world.evaluate(episodes=5, seed=0, video=tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"episode_{i}.mp4" for i in range(5)]
    for i, length in enumerate(results["episode_lengths"]):
        assert len(frames_of(tmp_path / f"episode_{i}.mp4")) == length + 1
