"""Dataset-driven evaluation around the engine: its videos, memory, progress, arguments, and per-episode constants."""

import tracemalloc

import gymnasium as gym
import numpy as np
import pytest

from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.policy import RandomPolicy
from stable_worldmodel.world import World

SHAPE = (48, 64)


class ShadeEnv(gym.Env):
    """Its state is the shade it draws; an action adds to it. Success within 5 of the goal."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, render_mode=None, channels=3, views=(), size=SHAPE):
        self.render_mode = render_mode
        self.observation_space = gym.spaces.Box(0, 255, (1,), np.float32)
        self.action_space = gym.spaces.Box(-10, 10, (1,), np.float32)
        self.channels, self.size = channels, size
        if views:
            self.render_multiview = lambda: {view: self.draw(self.shade + 40 * i) for i, view in enumerate(views)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.shade, self.aim = 50.0, 100.0
        return self.step([0])[0], self.info()

    def step(self, action):
        self.shade = float(np.clip(self.shade + action[0], 0, 210))
        return np.array([self.shade], np.float32), 0.0, False, False, self.info()

    def info(self):
        return {"state": np.float64(self.shade), "success": abs(self.shade - self.aim) < 5}

    def put(self, shade, aim=None, gain=1.0):
        self.shade = float(shade) * gain
        self.aim = self.aim if aim is None else float(aim)

    def render(self):
        return self.draw(self.shade)

    def draw(self, shade):
        frame = np.full((*self.size, self.channels), shade, np.uint8)
        if self.channels == 4:
            frame[:, :, 3] = 255
        return frame


if "toy/Shade-v0" not in gym.registry:
    gym.register("toy/Shade-v0", entry_point=ShadeEnv)

PUT = [{"method": "put", "args": {"shade": {"value": "state"}, "aim": {"value": "goal_state"}}}]


class Recording:
    """A dataset in memory: the state of row t of episode e is 30 + 10 e + 4 t."""

    def __init__(self, views=("pixels",), channels=3, constants=None, size=SHAPE):
        self.lengths = np.array([60, 60, 60])
        self.views, self.channels, self.constants, self.size = views, channels, constants, size
        self.column_names = ["state", *views]

    def get_episode_data(self, episodes=None):
        return {key: [values[e] for e in episodes] for key, values in (self.constants or {}).items()}

    def read_rows(self, episode, start, stop, columns=None):
        states = 30.0 + 10 * episode + 4 * np.arange(start, stop)
        rows = {"state": states}
        for i, view in enumerate(self.views):
            shades = (states + 40 * i).astype(np.uint8)
            rows[view] = np.tile(shades[:, None, None, None], (1, *self.size, self.channels))
            if self.channels == 4:
                rows[view][..., 3] = 255
        return {key: rows[key] for key in (columns or rows)}


class Climb(RandomPolicy):
    """Adds `rate` per step; fails at call `fails_at`."""

    def __init__(self, rate=4.0, fails_at=None):
        super().__init__(seed=0)
        self.rate, self.fails_at, self.calls = rate, fails_at, 0

    def get_action(self, obs, **kwargs):
        self.calls += 1
        if self.calls == self.fails_at:
            raise OSError("stop")
        return np.full((len(obs["state"]), 1), self.rate, np.float32)


def evaluate(policy=None, dataset=None, num_envs=2, world=None, offset=10, budget=12, call=None, **kwargs):
    arguments = {"channels": 3, "max_episode_steps": 1000, "backend": "sync", **(world or {})}
    shape = (*arguments.get("size", SHAPE), arguments["channels"])
    with World("toy/Shade-v0", num_envs, shape, goal_conditioned=False, **arguments) as made:
        made.set_policy(policy or Climb())
        return getattr(made, call or "evaluate")(
            dataset=dataset or Recording(),
            episodes_idx=np.arange(num_envs),
            start_steps=[5] * num_envs,
            **({"goal_offset": offset} if call is None else {"goal_offset_steps": offset}),
            eval_budget=budget,
            **{"callables": PUT, **kwargs},
        )


def frames_of(path):
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def panel_shades(frame, part=slice(30, -6)):
    """Mean shade in the middle of each of the three panels."""
    width = frame.shape[1] // 3
    return [round(float(frame[part, i * width + 20 : (i + 1) * width - 20].mean())) for i in range(3)]


def test_the_panels_are_rollout_recording_and_goal(tmp_path):
    results = evaluate(Climb(1.0), offset=4, budget=9, video=tmp_path)
    assert results["episode_lengths"].tolist() == [9, 9]
    for item in range(2):
        frames = frames_of(tmp_path / f"env_{item}.mp4")
        assert len(frames) == 10
        start = 50 + 10 * item
        for t, frame in enumerate(frames):
            # After the start row comes what the env draws; the recording climbs by 4 and holds its last row.
            expected = [start + t, start + 4 * min(t, 4), start + 16]
            assert panel_shades(frame) == pytest.approx(expected, abs=3)


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_rgba_are_shown_as_rgb(tmp_path, channels):
    evaluate(dataset=Recording(channels=channels), world={"channels": channels}, offset=4, budget=3, video=tmp_path)
    assert panel_shades(frames_of(tmp_path / "env_0.mp4")[2]) == pytest.approx([58, 58, 66], abs=3)


def test_several_views_are_stacked_in_every_panel(tmp_path):
    views = ("pixels.a", "pixels.b")
    evaluate(dataset=Recording(views), world={"views": ("a", "b")}, offset=4, budget=3, video=tmp_path)
    frame = frames_of(tmp_path / "env_0.mp4")[2]
    assert panel_shades(frame, slice(30, 100)) == pytest.approx([58, 58, 66], abs=3)
    assert panel_shades(frame, slice(140, 200)) == pytest.approx([98, 98, 106], abs=3)


def test_a_dataset_without_the_pictures_is_named_before_the_first_step(tmp_path):
    policy = Climb()
    with pytest.raises(MissingKeyError, match="pixels"):
        evaluate(policy, Recording(views=()), video=tmp_path)
    assert policy.calls == 0
    assert evaluate(dataset=Recording(views=()))["episode_count"] == 2  # needed for videos only


def test_a_run_that_breaks_off_leaves_playable_files(tmp_path):
    with pytest.raises(OSError, match="stop"):
        evaluate(Climb(0.0, fails_at=5), video=tmp_path)
    assert {p.name: len(frames_of(p)) for p in tmp_path.iterdir()} == {
        "env_0.unfinished.mp4": 5,
        "env_1.unfinished.mp4": 5,
    }


def test_memory_does_not_grow_with_the_budget(tmp_path):
    def peak(budget):
        tracemalloc.start()
        try:
            evaluate(Climb(0.0), Recording(size=(128, 128)), 2, {"size": (128, 128)}, budget=budget, video=tmp_path)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(2)  # imports
    assert peak(90) - peak(10) < 2e6  # 80 frames of two envs would take 7.8 MB


def test_older_name_and_its_videos(tmp_path):
    results = evaluate(call="evaluate_from_dataset", video_path=tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rollout_0.mp4", "rollout_1.mp4"]
    newer = evaluate()
    assert results.protocol == newer.protocol
    for key in newer:
        np.testing.assert_array_equal(results[key], newer[key])


def test_older_name_without_videos_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evaluate(call="evaluate_from_dataset", save_video=False)
    assert list(tmp_path.glob("*.mp4")) == []


def test_results_say_where_success_was_read():
    assert evaluate().protocol["success"] == "success"
    for env, source in {"toy/Walk-v0": "terminated", "toy/Coin-v0": "is_success", "toy/Failing-v0": "success"}.items():
        with World(env, 2, add_pixels=False, goal_conditioned=False, max_episode_steps=5) as world:
            world.set_policy(RandomPolicy(seed=0))
            assert world.evaluate(3, seed=0).protocol["success"] == source


class Log:
    """A progress display that remembers."""

    def __init__(self):
        self.total, self.done, self.steps = 0, [], 0

    def stage(self, name):
        pass

    def task(self, name, total, done=0):
        self.total = total
        return self

    def advance(self, n=1, *, steps=0, **readings):
        self.done.append(n)
        self.steps += steps


def test_progress_counts_steps_and_reaches_the_end():
    whole, early = Log(), Log()
    results = evaluate(Climb(0.0), budget=12, progress=whole)
    assert (whole.total, whole.done, whole.steps) == (12, [1] * 12 + [0], results["episode_lengths"].sum())
    with_limit = {"max_episode_steps": 4}
    evaluate(Climb(0.0), budget=12, progress=early, world=with_limit)
    assert (early.total, early.done, early.steps) == (12, [1] * 4 + [8], 8)


def test_constants_of_an_episode_belong_to_its_start():
    call = [{"method": "put", "args": {"shade": {"value": "state"}, "gain": {"value": "gain"}}}]
    dataset = Recording(constants={"gain": [2.0, 1.0, 1.0], "note": ["a", "b", "c"]})
    results = evaluate(Climb(0.0), dataset, callables=call, budget=1)
    assert results["episode_successes"].tolist() == [True, False]  # 50 doubled is the env's own aim, 60 is not


def test_callables_of_unknown_columns_and_methods_are_skipped_with_a_warning(caplog):
    calls = [{"method": "put", "args": {"shade": {"value": "nowhere"}}}, {"method": "jump"}, *PUT]
    results = evaluate(callables=calls)
    assert results["success_rate"] == 100
    assert "no column 'nowhere'" in caplog.text
    assert "no such method" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offset": 1.5}, "goal_offset=1.5"),
        ({"budget": "3"}, "eval_budget='3'"),
        ({"start_steps": [0.5, 1]}, "start_steps"),
        ({"start_steps": None}, "start_steps.* are required"),
        ({"options": {"a": 1}}, "options.* cannot be given"),
        ({"eval_keys": ["state"]}, "eval_keys.* cannot be given"),
        ({"dump_every": 3}, "dump_every.* cannot be given"),
    ],
    ids=str,
)
def test_arguments_are_checked_first(change, message):
    names = {"offset": "goal_offset", "budget": "eval_budget"}
    arguments = {
        "episodes_idx": [0, 1],
        "start_steps": [0, 0],
        "goal_offset": 3,
        "eval_budget": 3,
        **{names.get(key, key): value for key, value in change.items()},
    }
    policy = Climb()
    with World("toy/Shade-v0", 2, SHAPE, goal_conditioned=False) as world:
        world.set_policy(policy)
        with pytest.raises(ContractError, match=message):
            world.evaluate(dataset=Recording(), **arguments)
    assert policy.calls == 0


def test_a_time_limit_below_the_budget_is_pointed_out(caplog):
    evaluate(world={"max_episode_steps": 4})
    assert "max_episode_steps=4" in caplog.text
