"""Videos show what was there, frame by frame; datasets land in the file that was named."""

import gymnasium as gym
import numpy as np
import pytest

from stable_worldmodel.data import get_cache_dir, load_dataset, open_writer
from stable_worldmodel.errors import ContractError, MissingKeyError, NotFoundError, PolicyNotSetError
from stable_worldmodel.policy import BasePolicy, RandomPolicy
from stable_worldmodel.utils import record_video_from_dataset
from stable_worldmodel.world import World
from stable_worldmodel.world.video import image_views, stack_views

av = pytest.importorskip("av")

SIZE = (16, 24)


class FilmEnv(gym.Env):
    """Draws its step counter as a shade, in as many views and channels as asked for; ends after 3 + seed steps."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, render_mode=None, channels=3, views=(), goal=True, fails_at=None):
        self.render_mode = render_mode
        self.observation_space = gym.spaces.Box(0, 1, (1,), np.float32)
        self.action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
        self.channels, self.views, self.goal, self.fails_at = channels, views, goal, fails_at
        if views:
            self.render_multiview = lambda: {view: self.draw(shade(self.t) + 20 * i) for i, view in enumerate(views)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed, self.t = seed or 0, (options or {}).get("t", 0)
        return np.zeros(1, np.float32), self.info()

    def step(self, action):
        self.t += 1
        if self.t == self.fails_at:
            raise OSError("camera lost")
        return np.zeros(1, np.float32), 0.0, self.t >= 3 + self.seed, False, self.info()

    def info(self):
        return {"goal": self.draw(230)} if self.goal else {}

    def render(self):
        return self.draw(shade(self.t))

    def draw(self, value):
        frame = np.full((*SIZE, self.channels), value, np.uint8)
        if self.channels == 4:
            frame[:, :, 3] = 255
        return frame


def shade(t):
    return 20 + 10 * (t % 20)


if "toy/Film-v0" not in gym.registry:
    gym.register("toy/Film-v0", entry_point=FilmEnv)


def film_world(num_envs, shape=SIZE, **kwargs):
    world = World("toy/Film-v0", num_envs, shape, goal_conditioned=False, backend="sync", **kwargs)
    world.set_policy(RandomPolicy(seed=0))
    return world


def frames_of(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def shades(frames, rows=slice(None)):
    return [round(float(frame[rows].mean())) for frame in frames]


def near(values):
    return pytest.approx(values, abs=3)


# ---------------------------------------------------------------------- record_video
def test_the_reset_frame_comes_first_and_the_first_end_is_the_last(tmp_path):
    with film_world(2) as world:
        world.record_video(tmp_path / "new" / "folder", seed=1)
    for env in range(2):  # seeds 1 and 2 end after 4 and 5 steps
        frames = frames_of(tmp_path / "new" / "folder" / f"env_{env}.mp4")
        assert shades(frames, slice(0, 12)) == near([shade(t) for t in range(5)])
        assert shades(frames, slice(20, 32)) == near([230] * 5)  # the goal below
        assert frames[0].shape == (32, 24, 3)


def test_max_steps_ends_it_earlier_and_options_reach_the_envs(tmp_path):
    with film_world(2, goal=False) as world:
        world.record_video(tmp_path, 2, seed=9, options=[None, {"t": 5}])
    assert shades(frames_of(tmp_path / "env_0.mp4")) == near([shade(t) for t in (0, 1, 2)])
    assert shades(frames_of(tmp_path / "env_1.mp4")) == near([shade(t) for t in (5, 6, 7)])
    assert frames_of(tmp_path / "env_0.mp4")[0].shape == (16, 24, 3)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("history", [1, 3])
def test_grey_and_rgba_become_rgb_and_the_newest_frame_is_shown(tmp_path, channels, history):
    with film_world(1, (*SIZE, channels), channels=channels, history_size=history) as world:
        world.record_video(tmp_path, 2)
    assert shades(frames_of(tmp_path / "env_0.mp4"), slice(0, 12)) == near([20, 30, 40])


def test_views_are_stacked_in_the_order_asked_for(tmp_path):
    with film_world(1, views=("top", "side"), goal=False) as world:
        world.record_video(tmp_path / "all", 2)
        world.record_video(tmp_path / "two", 2, viewname=["pixels.side", "pixels.top"])
        world.record_video(tmp_path / "one", 2, viewname="pixels.side")
    both, swapped, one = (frames_of(tmp_path / name / "env_0.mp4") for name in ("all", "two", "one"))
    assert (shades(both, slice(0, 14)), shades(both, slice(18, 32))) == (near([20, 30, 40]), near([40, 50, 60]))
    assert (shades(swapped, slice(0, 14)), shades(swapped, slice(18, 32))) == (near([40, 50, 60]), near([20, 30, 40]))
    assert (shades(one), one[0].shape) == (near([40, 50, 60]), (16, 24, 3))


def test_gifs_and_other_names(tmp_path):
    with film_world(1) as world:
        world.record_video(tmp_path, 2, extension="gif")
        assert len(frames_of(tmp_path / "env_0.gif")) == 3
        with pytest.raises(ContractError, match="avi"):
            world.record_video(tmp_path, 2, extension="avi")
        with pytest.raises(ContractError, match="max_steps"):
            world.record_video(tmp_path, 0)


@pytest.mark.parametrize("viewname", ["nonsense", "observation", ["pixels", "pixel"], "reward"])
def test_a_view_that_is_no_image_fails_before_the_first_step(tmp_path, viewname):
    class Fails(BasePolicy):
        def get_action(self, obs, **kwargs):
            raise AssertionError("a step was taken")

    with film_world(1) as world:
        world.set_policy(Fails())
        with pytest.raises(MissingKeyError, match="there are"):
            world.record_video(tmp_path / "v", viewname=viewname)
    assert not (tmp_path / "v").exists()


def test_videos_are_finished_when_an_env_raises(tmp_path):
    with film_world(2, fails_at=3) as world, pytest.raises(OSError, match="camera"):
        world.record_video(tmp_path, seed=5)
    assert [len(frames_of(tmp_path / f"env_{env}.mp4")) for env in range(2)] == [3, 3]


def test_a_video_needs_a_policy(tmp_path):
    with World("toy/Film-v0", 1, SIZE, goal_conditioned=False) as world, pytest.raises(PolicyNotSetError):
        world.record_video(tmp_path)


def test_narrow_views_are_padded_to_the_widest():
    frame = stack_views([np.full((2, 3, 1), 9, np.uint8), np.full((4, 5, 3), 7, np.uint8)])
    assert frame.shape == (6, 5, 3)
    assert (frame[:2, :3] == 9).all()
    assert (frame[:2, 3:] == 0).all()
    assert (frame[2:] == 7).all()


def test_a_name_without_an_image_stands_for_its_views():
    images = ["pixels.top", "pixels.side", "goal", "pixelsort"]
    assert image_views("pixels", images) == ["pixels.top", "pixels.side"]
    assert image_views(("goal", "pixels.side"), images) == ["goal", "pixels.side"]
    assert image_views("pixels", ["pixels", "pixels.top"]) == ["pixels"]


# ---------------------------------------------------------------------- evaluation videos
@pytest.mark.parametrize(("channels", "views"), [(1, ()), (4, ()), (3, ("a", "b"))])
def test_evaluation_videos_show_any_kind_of_picture(tmp_path, channels, views):
    with film_world(2, (*SIZE, channels), channels=channels, views=views) as world:
        world.evaluate(3, seed=0, video=tmp_path)
    for episode in range(3):  # as many steps as the seed says
        frames = frames_of(tmp_path / f"episode_{episode}.mp4")
        assert shades(frames, slice(0, 12)) == near([shade(t) for t in range(4 + episode)])
        assert frames[0].shape[0] == 16 * max(1, len(views))


def test_only_complete_episodes_have_their_name_when_a_run_breaks_off(tmp_path):
    class Breaks(RandomPolicy):
        def get_action(self, obs, **kwargs):
            if obs["step_idx"].max() == 4:
                raise OSError("stop")
            return super().get_action(obs, **kwargs)

    with film_world(2) as world:
        world.evaluate(4, seed=20, video=tmp_path)  # another run, whose files must not be taken for this one's
        world.set_policy(Breaks(seed=0))
        with pytest.raises(OSError, match="stop"):
            world.evaluate(5, seed=0, video=tmp_path)
        # Episodes 0 and 1 ended after 3 and 4 steps; 2 and 3 took their envs.
        assert {path.name: len(frames_of(path)) for path in tmp_path.iterdir()} == {
            "episode_0.mp4": 4,
            "episode_1.mp4": 5,
            "episode_2.unfinished.mp4": 5,
            "episode_3.unfinished.mp4": 4,
        }
        world.set_policy(RandomPolicy(seed=0))
        world.evaluate(5, seed=0, video=tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"episode_{e}.mp4" for e in range(5)]


def test_a_file_is_complete_when_its_episode_is_even_behind_a_longer_one(tmp_path):
    class Looks(RandomPolicy):
        def get_action(self, obs, **kwargs):
            if obs["step_idx"][0, 0] == 50:
                self.found = {path.name: len(frames_of(path)) for path in tmp_path.glob("episode_?.mp4")}
            return super().get_action(obs, **kwargs)

    with film_world(2) as world:
        policy = Looks(seed=0)
        world.set_policy(policy)
        world.evaluate(2, seed=90, video=tmp_path, options=[None, {"t": 80}])
    assert policy.found == {"episode_1.mp4": 15}  # from t = 80 to 94, while episode 0 runs for 93 steps


# ---------------------------------------------------------------------- record_dataset
def test_a_dataset_lands_under_its_name_and_is_resumed(tmp_path):
    with film_world(2) as world:
        assert world.record_dataset("sub/films", 2, seed=0) is None
        path = get_cache_dir() / "sub" / "films.h5"
        assert load_dataset(path).lengths.tolist() == [4, 5]
        world.record_dataset("sub/films.h5", 4, seed=0)
        world.record_dataset("sub/films", 3, seed=0)  # nothing to do
        world.record_dataset("whole", 4, seed=0, cache_dir=tmp_path / "elsewhere")
    assert [p.name for p in path.parent.glob("*.h5")] == ["films.h5"]
    resumed, whole = load_dataset(path), load_dataset(tmp_path / "elsewhere" / "whole.h5")
    assert resumed.lengths.tolist() == [4, 5, 6, 7]
    for name in whole.column_names:
        for episode, length in enumerate(whole.lengths.tolist()):
            np.testing.assert_array_equal(
                resumed.read_rows(episode, 0, length)[name], whole.read_rows(episode, 0, length)[name], err_msg=name
            )


def test_reset_options_are_recorded_with(tmp_path):
    with film_world(1) as world:
        world.record_dataset("shifted", 1, 4, tmp_path, {"t": 2})
    rows = load_dataset("shifted", tmp_path).read_rows(0, 0, 6)
    assert rows["pixels"][:, 0, 0, 0].tolist() == [shade(t) for t in range(2, 8)]


@pytest.mark.parametrize("name", ["../out", "/tmp/out", ""])
def test_a_name_outside_the_root_is_refused(name):
    with film_world(1) as world, pytest.raises(ContractError, match="name"):
        world.record_dataset(name, 1)


def test_a_world_without_pictures_records_too(tmp_path):
    with film_world(1, None, add_pixels=False) as world:
        world.record_dataset("states", 1, cache_dir=tmp_path)
    assert "pixels" not in load_dataset(tmp_path / "states.h5").column_names


# ---------------------------------------------------------------------- record_video_from_dataset
@pytest.fixture(scope="module")
def films(tmp_path_factory):
    path = tmp_path_factory.mktemp("films") / "films.h5"
    with film_world(2) as world:
        world.collect(path, 4, seed=0, progress=False)
    return path


def test_recorded_episodes_become_videos(films, tmp_path):
    with film_world(1) as world:
        world.record_video_from_dataset(tmp_path / "all", "films", [3, 1], cache_dir=films.parent)
        world.record_video_from_dataset(tmp_path / "some", films, 2, max_steps=3, viewname="goal")
    record_video_from_dataset(tmp_path / "open", load_dataset(films), np.int64(0), num_proc=1)
    assert sorted(p.name for p in (tmp_path / "all").iterdir()) == ["episode_1.mp4", "episode_3.mp4"]
    for episode in (1, 3):
        frames = frames_of(tmp_path / "all" / f"episode_{episode}.mp4")
        assert shades(frames, slice(0, 12)) == near([shade(t) for t in range(4 + episode)])
        assert shades(frames, slice(20, 32)) == near([230] * (4 + episode))
    (goals,) = [frames_of(path) for path in (tmp_path / "some").iterdir()]
    assert (shades(goals), goals[0].shape) == (near([230] * 3), (16, 24, 3))
    assert len(frames_of(tmp_path / "open" / "episode_0.mp4")) == 4


def test_long_episodes_are_read_in_blocks_without_a_seam(tmp_path):
    values = np.arange(100, dtype=np.uint8) * 2
    with open_writer(tmp_path / "long.h5") as writer:
        for _ in range(6):
            writer.write_episode({"pixels.a": np.broadcast_to(values[:, None, None, None], (100, 16, 16, 1))})
    record_video_from_dataset(tmp_path / "v", tmp_path / "long.h5", list(range(6)), 90)
    for episode in range(6):
        assert shades(frames_of(tmp_path / "v" / f"episode_{episode}.mp4")) == near(values[:90].tolist())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"dataset": "nowhere"}, NotFoundError, "elsewhere"),
        ({"episode_idx": 4}, MissingKeyError, r"\[4\].*0..3"),
        ({"episode_idx": [0, -1]}, MissingKeyError, r"\[-1\]"),
        ({"episode_idx": [0.5]}, ContractError, "episode_idx"),
        ({"viewname": "nonsense"}, MissingKeyError, "nonsense"),
        ({"viewname": "action"}, MissingKeyError, "action"),
        ({"max_steps": 0}, ContractError, "max_steps"),
        ({"num_proc": 0}, ContractError, "num_proc"),
    ],
    ids=str,
)
def test_what_does_not_exist_is_named_before_anything_is_written(films, tmp_path, change, error, message):
    arguments = {"dataset": films, "episode_idx": [0], "cache_dir": tmp_path / "elsewhere", **change}
    with pytest.raises(error, match=message):
        record_video_from_dataset(tmp_path / "v", **arguments)
    assert not (tmp_path / "v").exists()


def test_a_failing_encoder_stops_the_rest_and_closes_its_file(tmp_path):
    sizes = [np.zeros((40, 16, 16, 3), np.uint8), np.zeros((40, 16, 16, 3), np.uint8)]

    class Reader:
        lengths = np.array([40, 40])
        column_names = ("pixels",)

        def read_rows(self, episode, start, stop, columns=None):
            if start >= 32:
                raise OSError("disk")
            return {"pixels": sizes[episode][start:stop]}

    with pytest.raises(OSError, match="disk"):
        record_video_from_dataset(tmp_path, Reader(), [0, 1], num_proc=2)
    assert [len(frames_of(path)) for path in sorted(tmp_path.glob("*.mp4"))] == [32, 32]
