"""Visual wrappers change the images of info, as a pure function of frame, seeds and step, and nothing else."""

import functools

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from toy_envs import WalkEnv

from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.policy import RandomPolicy
from stable_worldmodel.world import World
from stable_worldmodel.wrappers import (
    AddPixelsWrapper,
    BlurWrapper,
    ChromaKeyWrapper,
    ColorJitterWrapper,
    CutoutWrapper,
    GrayscaleWrapper,
    Linear,
    MovingPatchWrapper,
    NoiseWrapper,
    OcclusionWrapper,
    RandomConvWrapper,
    RandomShiftWrapper,
    ResolutionWrapper,
    StackedWrapper,
    VisualWrapper,
    pixels,
)

Chroma = functools.partial(ChromaKeyWrapper, low=0, high=200, replacement=(10, 220, 30))
# name -> (factory, the arguments that make it the identity, whether it is random)
ALL = {
    "chroma": (Chroma, {"opacity": 0}, False),
    "noise": (NoiseWrapper, {"std": 0}, True),
    "jitter": (ColorJitterWrapper, {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0}, True),
    "blur": (BlurWrapper, {"sigma": 0}, False),
    "occlusion": (functools.partial(OcclusionWrapper, color=None), {"opacity": 0}, True),
    "occlusion of no size": (OcclusionWrapper, {"size": 0}, True),
    "patch": (MovingPatchWrapper, {"opacity": 0}, True),
    "patch of no size": (MovingPatchWrapper, {"size": 0}, True),
    "shift": (RandomShiftWrapper, {"pad": 0}, True),
    "cutout": (CutoutWrapper, {"size": 0}, True),
    "conv": (RandomConvWrapper, {"amount": 0}, True),
    "gray": (GrayscaleWrapper, {"amount": 0}, False),
    "resolution": (ResolutionWrapper, {"reduction": 0}, False),
}
each = pytest.mark.parametrize("name", ALL)
each_random = pytest.mark.parametrize("name", [name for name, (_, _, random) in ALL.items() if random])
shapes = st.tuples(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3, 4]))


class Camera(gym.Env):
    """Shows the images it was given; step t shows number t, and the last one stays."""

    observation_space = gym.spaces.Box(0, 1, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, *images, key="pixels", **others):
        self.images = images
        self.key = key
        self.others = others

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), self._info()

    def step(self, action):
        self.t += 1
        return np.zeros(1, np.float32), 0.0, False, False, self._info()

    def _info(self):
        return {self.key: self.images[min(self.t, len(self.images) - 1)], **self.others}


def picture(shape=(24, 24, 3), seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def frames(env, seed, steps=3, key="pixels", options=None):
    """The images of one episode, step by step."""
    shown = [env.reset(seed=seed, options=options)[1][key]]
    shown += [env.step(np.zeros(1, np.float32))[4][key] for _ in range(steps)]
    return shown


def same(first, second):
    return len(first) == len(second) and all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


class TestEveryWrapper:
    @each
    @settings(max_examples=15, deadline=None)
    @given(shape=shapes, seed=st.integers(0, 2**70), wrapper_seed=st.integers(0, 2**40))
    def test_keeps_shape_and_dtype_and_leaves_the_input_alone(self, name, shape, seed, wrapper_seed):
        image = picture(shape)
        before = image.copy()
        make = ALL[name][0]
        shown = frames(make(Camera(image), seed=wrapper_seed), seed)
        assert {(frame.shape, frame.dtype) for frame in shown} == {(shape, np.dtype(np.uint8))}
        np.testing.assert_array_equal(image, before)
        assert same(shown, frames(make(Camera(image), seed=wrapper_seed), seed))

    @each
    @settings(max_examples=10, deadline=None)
    @given(shape=shapes, seed=st.integers(0, 2**32))
    def test_is_the_identity_at_strength_0(self, name, shape, seed):
        make, nothing, _ = ALL[name]
        image = picture(shape)
        assert same(frames(make(Camera(image), **nothing), seed, 2), [image] * 3)

    @each
    def test_changes_something_by_default(self, name):
        if not name.endswith("of no size"):
            assert not np.array_equal(frames(ALL[name][0](Camera(picture())), 0)[0], picture())

    @each_random
    def test_draws_anew_for_another_reset_or_wrapper_seed(self, name):
        make = ALL[name][0]
        first = frames(make(Camera(picture())), 1)
        assert not same(first, frames(make(Camera(picture())), 2))
        assert not same(first, frames(make(Camera(picture()), seed=1), 1))

    @each_random
    def test_two_resets_without_a_seed_differ(self, name):
        env = ALL[name][0](Camera(picture()))
        assert not same(frames(env, None, 10), frames(env, None, 10))

    @each
    def test_an_episode_does_not_depend_on_what_ran_before(self, name):
        fresh, used = ALL[name][0](Camera(picture())), ALL[name][0](Camera(picture()))
        frames(used, None, 7)
        frames(used, 3, 2)
        assert same(frames(fresh, 5), frames(used, 5))

    @each
    def test_alpha_stays(self, name):
        image = picture((24, 24, 4))
        shown = frames(ALL[name][0](Camera(image)), 0)[2]
        np.testing.assert_array_equal(shown[:, :, 3], image[:, :, 3])
        np.testing.assert_array_equal(shown[:, :, :3], frames(ALL[name][0](Camera(image[:, :, :3])), 0)[2])

    @each
    def test_flipped_and_read_only_frames_are_fine(self, name):
        image = picture()[::-1]
        image.flags.writeable = False
        assert same(frames(ALL[name][0](Camera(image)), 0), frames(ALL[name][0](Camera(image.copy())), 0))

    @each
    @pytest.mark.parametrize("frameskip", [1, 2])
    def test_a_frame_of_the_history_looks_as_when_it_was_newest(self, name, frameskip):
        images = [picture(seed=i) for i in range(8)]
        make = ALL[name][0]
        outside = make(StackedWrapper(Camera(*images), None, 3, frameskip))
        inside = StackedWrapper(make(Camera(*images)), None, 3, frameskip)
        frames(outside, 9, 3)
        assert same(frames(outside, 2, 7), frames(inside, 2, 7))

    @each
    def test_datasets_are_bit_identical_for_any_num_envs_and_only_images_change(self, name):
        def collect(num_envs, *wrappers):
            episodes = []
            sink = type("Sink", (), {"write_episode": staticmethod(episodes.append)})
            with World("toy/Walk-v0", num_envs, (8, 8), extra_wrappers=wrappers) as world:
                world.set_policy(RandomPolicy(seed=1))
                world.collect(writer=sink, episodes=5, seed=0, progress=False)
            return episodes

        one, many, plain = collect(1, ALL[name][0]), collect(3, ALL[name][0]), collect(1)
        for first, second, bare in zip(one, many, plain, strict=True):
            assert first.keys() == second.keys() == bare.keys()
            for key in first:
                np.testing.assert_array_equal(np.asarray(first[key]), np.asarray(second[key]), err_msg=key)
                if key != "pixels":
                    np.testing.assert_array_equal(np.asarray(first[key]), np.asarray(bare[key]), err_msg=key)


class TestVisualWrapper:
    def test_wrapping_does_not_touch_the_generator_of_the_env(self):
        bare, wrapped = WalkEnv("rgb_array"), NoiseWrapper(AddPixelsWrapper(WalkEnv("rgb_array"), (8, 8)))
        for env in (bare, wrapped):
            env.reset(seed=4)
        for _ in range(5):
            action = np.zeros(1, np.float32)
            assert bare.step(action)[0] == wrapped.step(action)[0]

    def test_default_keys_are_pixels_and_its_views(self):
        image, goal = picture(), picture(seed=1)
        views = {"pixels.top": image, "pixels.side": image, "goal": goal, "pixelsize": 3}
        info = OcclusionWrapper(Camera(image, **views)).reset(seed=0)[1]
        assert not np.array_equal(info["pixels"], image)
        np.testing.assert_array_equal(info["pixels.top"], info["pixels"])
        np.testing.assert_array_equal(info["pixels.side"], info["pixels"])
        np.testing.assert_array_equal(info["goal"], goal)
        assert info["pixelsize"] == 3

    def test_keys_select_the_goal_too_and_it_gets_the_same_change(self):
        env = RandomConvWrapper(Camera(picture(), goal=picture()), keys=("pixels", "goal"))
        info = env.reset(seed=0)[1]
        np.testing.assert_array_equal(info["goal"], info["pixels"])
        info = RandomConvWrapper(Camera(picture(), goal=picture()), keys="goal").reset(seed=0)[1]
        np.testing.assert_array_equal(info["pixels"], picture())

    def test_noise_is_independent_between_views_and_of_the_other_views(self):
        two = NoiseWrapper(Camera(picture(), key="pixels.a", **{"pixels.b": picture()})).reset(seed=0)[1]
        one = NoiseWrapper(Camera(picture(), key="pixels.b")).reset(seed=0)[1]
        assert not np.array_equal(two["pixels.a"], two["pixels.b"])
        np.testing.assert_array_equal(two["pixels.b"], one["pixels.b"])

    @pytest.mark.parametrize(("redraw", "moves"), [("step", True), ("episode", False)])
    @pytest.mark.parametrize("make", [NoiseWrapper, OcclusionWrapper, CutoutWrapper, RandomShiftWrapper])
    def test_redraw_says_whether_random_numbers_last_for_an_episode(self, make, redraw, moves):
        shown = frames(make(Camera(picture()), redraw=redraw), 0, 5)
        assert same(shown[:1] * 6, shown) is not moves

    @pytest.mark.parametrize(
        "image", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4), np.uint8), "cat"]
    )
    def test_what_is_no_image_is_refused(self, image):
        with pytest.raises(ContractError, match="pixels"):
            NoiseWrapper(Camera(image)).reset()

    def test_missing_images_are_named(self):
        with pytest.raises(MissingKeyError, match="state"):
            NoiseWrapper(Camera(picture(), key="state")).reset()
        with pytest.raises(MissingKeyError, match="goal"):
            NoiseWrapper(Camera(picture()), keys=["pixels", "goal"]).reset()

    @pytest.mark.parametrize(
        ("make", "arguments"),
        [
            (NoiseWrapper, {"std": -0.1}),
            (NoiseWrapper, {"std": float("nan")}),
            (NoiseWrapper, {"std": 1.5}),
            (NoiseWrapper, {"std": True}),
            (NoiseWrapper, {"seed": -1}),
            (NoiseWrapper, {"seed": 0.5}),
            (NoiseWrapper, {"per": "year"}),
            (NoiseWrapper, {"redraw": "never"}),
            (BlurWrapper, {"sigma": float("inf")}),
            (BlurWrapper, {"sigma": "strong"}),
            (OcclusionWrapper, {"count": 0}),
            (OcclusionWrapper, {"color": (1, 2)}),
            (OcclusionWrapper, {"color": 256}),
            (OcclusionWrapper, {"color": 0.5}),
            (MovingPatchWrapper, {"speed": -1}),
            (ResolutionWrapper, {"resample": "sharp"}),
            (ChromaKeyWrapper, {"low": 9, "high": (9, 8, 9)}),
            (ChromaKeyWrapper, {"low": 0, "high": 9, "replacement": np.zeros((4, 4, 3))}),
        ],
    )
    def test_bad_arguments_are_refused_at_construction(self, make, arguments):
        with pytest.raises(ContractError, match=next(reversed(arguments))):
            make(Camera(picture()), **arguments)

    def test_a_subclass_needs_only_draw(self):
        class Invert(VisualWrapper):
            def __init__(self, env, **shared):
                super().__init__(env, {}, **shared)

            def draw(self, image, strengths, t, rng):
                return 255 - image

        np.testing.assert_array_equal(frames(Invert(Camera(picture())), 0)[1], 255 - picture())


class TestStrengthSchedules:
    def test_per_step_the_strength_follows_the_steps_of_the_episode(self):
        env = BlurWrapper(Camera(picture()), sigma=Linear(0, 3, 3))
        fixed = [frames(BlurWrapper(Camera(picture()), sigma=s), 0, 0)[0] for s in (0, 1, 2, 3, 3)]
        for _ in range(2):  # and starts again with the next one
            assert same(frames(env, 0, 4), fixed)

    def test_per_episode_it_follows_the_index_in_the_options(self):
        env = BlurWrapper(Camera(picture()), sigma=Linear(0, 4, 4), per="episode")
        for index in (3, 1):
            expected = frames(BlurWrapper(Camera(picture()), sigma=index), 0)
            assert same(frames(env, 0, options={"episode_index": index}), expected)

    def test_an_episode_without_an_index_is_number_0_whatever_ran_before(self):
        env = BlurWrapper(Camera(picture()), sigma=Linear(0, 4, 4), per="episode")
        frames(env, 0, options={"episode_index": 3})
        assert same(frames(env, 0), [picture()] * 4)

    @pytest.mark.parametrize("index", [-1, 0.5, True, "first", None])
    def test_a_wrong_index_is_refused(self, index):
        with pytest.raises(ContractError, match="episode_index"):
            BlurWrapper(Camera(picture()), per="episode").reset(options={"episode_index": index})

    def test_per_episode_works_in_a_world_of_any_size(self):
        noise = functools.partial(NoiseWrapper, std=Linear(0, 0.5, 2), per="episode")
        for num_envs in (1, 5):
            episodes = []
            sink = type("Sink", (), {"write_episode": staticmethod(episodes.append)})
            with World("toy/Walk-v0", num_envs, (8, 8), extra_wrappers=[noise]) as world:
                world.set_policy(RandomPolicy(seed=1))
                options = [{"episode_index": k} for k in range(3)]
                world.collect(writer=sink, episodes=3, seed=0, options=options, progress=False)
            spread = [float(np.std(episode["pixels"][0])) for episode in episodes]
            assert spread[0] == 0 < spread[1] < spread[2]

    def test_a_schedule_that_leaves_the_range_is_an_error_when_it_does(self):
        env = GrayscaleWrapper(Camera(picture()), amount=lambda t: 0.4 * t)
        env.reset(seed=0)
        env.step(None)
        env.step(None)
        with pytest.raises(ContractError, match="amount"):
            env.step(None)


class TestChromaKey:
    def test_only_the_range_is_replaced_bounds_included(self):
        image = np.array([[[9, 50, 50], [10, 50, 50], [20, 50, 50], [21, 50, 50], [15, 49, 50]]], np.uint8)
        env = ChromaKeyWrapper(Camera(image), (10, 50, 0), (20, 255, 255), (1, 2, 3))
        changed = (frames(env, 0)[0] == (1, 2, 3)).all(axis=2)
        assert changed.tolist() == [[False, True, True, False, False]]

    @pytest.mark.parametrize("background", [picture((24, 24, 3), 5), picture((24, 24, 1), 5), picture((24, 24), 5)])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_the_background_may_be_an_image(self, background, channels):
        image = picture((24, 24, channels))
        for replacement in (background, Image.fromarray(np.squeeze(background))):
            shown = frames(ChromaKeyWrapper(Camera(image), 0, 255, replacement), 0)[0]
            expected = background.reshape(24, 24, -1).astype(float)
            if channels == 1 and expected.shape[2] == 3:
                expected = expected @ pixels.LUMA[:, None]
            np.testing.assert_allclose(shown, np.broadcast_to(expected, image.shape), atol=0.51)

    def test_the_background_is_brought_to_the_size_of_the_frame(self):
        env = ChromaKeyWrapper(Camera(picture((10, 6, 3))), 0, 255, np.full((50, 40, 4), 7, np.uint8))
        np.testing.assert_array_equal(frames(env, 0)[0], np.full((10, 6, 3), 7))

    def test_opacity_blends(self):
        image = np.full((2, 2, 3), 100, np.uint8)
        assert np.unique(frames(ChromaKeyWrapper(Camera(image), 100, 100, 200, 0.25), 0)[0]) == 125


class TestNoise:
    def test_it_has_the_deviation_asked_for_and_no_bias(self):
        image = np.full((128, 128, 3), 128, np.uint8)
        noise = frames(NoiseWrapper(Camera(image), std=0.1), 0)[0].astype(float) - 128
        assert abs(noise.std() - 25.5) < 0.3
        assert abs(noise.mean()) < 0.4

    def test_neighbouring_values_and_steps_are_uncorrelated(self):
        image = np.full((128, 128, 3), 128, np.uint8)
        first, second = (frame.astype(float) - 128 for frame in frames(NoiseWrapper(Camera(image)), 0)[:2])
        pairs = [
            (first, second),
            (first[1:], first[:-1]),
            (first[:, 1:], first[:, :-1]),
            (first[..., 0], first[..., 1]),
        ]
        for a, b in pairs:
            assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.03


class TestColor:
    def test_brightness_alone_scales(self):
        image = np.full((2, 2, 3), (40, 80, 120), np.uint8)
        nothing = {"contrast": 0, "saturation": 0, "hue": 0}
        factors = set()
        for seed in range(20):
            shown = frames(ColorJitterWrapper(Camera(image), 0.5, **nothing), seed)[0]
            factors.add(shown[0, 0, 2] / 120)
            np.testing.assert_allclose(shown / image, shown[0, 0, 2] / 120, atol=0.02)
        assert 0.5 <= min(factors) < 0.7
        assert 1.3 < max(factors) <= 1.5

    def test_contrast_alone_scales_the_distance_from_mid_grey(self):
        image = np.full((2, 2, 3), (78, 128, 178), np.uint8)
        shown = frames(ColorJitterWrapper(Camera(image), 0, 0.5, 0, 0), 1)[0][0, 0].astype(int)
        assert abs(shown[1] - 128) <= 1
        assert abs((128 - shown[0]) - (shown[2] - 128)) <= 1
        assert shown[2] != 178

    def test_hue_and_saturation_keep_luma_and_do_nothing_to_grey(self):
        image = np.random.default_rng(0).integers(100, 150, (8, 8, 3), np.uint8)
        for arguments in ({"saturation": 0.5, "hue": 0}, {"saturation": 0, "hue": 0.5}):
            make = functools.partial(ColorJitterWrapper, brightness=0, contrast=0, **arguments)
            shown = frames(make(Camera(image)), 0)[0]
            assert not np.array_equal(shown, image)
            np.testing.assert_allclose(shown @ pixels.LUMA, image @ pixels.LUMA, atol=1.5)
            gray = picture((8, 8, 1))
            np.testing.assert_array_equal(frames(make(Camera(gray)), 0)[0], gray)
            equal_channels = np.repeat(gray, 3, axis=2)
            np.testing.assert_array_equal(frames(make(Camera(equal_channels)), 0)[0], equal_channels)

    def test_grey_frames_are_changed_like_grey_light(self):
        gray = picture((8, 8, 1))
        one = frames(ColorJitterWrapper(Camera(gray)), 3)[0]
        three = frames(ColorJitterWrapper(Camera(np.repeat(gray, 3, axis=2))), 3)[0]
        np.testing.assert_allclose(np.repeat(one, 3, axis=2).astype(int), three, atol=1)

    def test_a_full_turn_of_the_hue_is_none(self):
        np.testing.assert_allclose(pixels.jitter_matrix(1, 1, 1), np.eye(3), atol=1e-12)
        red = pixels.jitter_matrix(1, 1, 1 / 3) @ (255, 0, 0)
        assert red.argmax() != 0

    def test_grey_scale_is_pillows(self):
        shown = frames(GrayscaleWrapper(Camera(picture())), 0)[0]
        expected = np.asarray(Image.fromarray(picture()).convert("L"))[:, :, None]
        np.testing.assert_allclose(shown.astype(int), np.repeat(expected, 3, axis=2), atol=1)
        np.testing.assert_array_equal(frames(GrayscaleWrapper(Camera(picture((5, 5, 1)))), 0)[0], picture((5, 5, 1)))


class TestShapes:
    def test_occlusions_stay_for_an_episode_and_have_the_size_asked_for(self):
        white = np.full((100, 100, 3), 255, np.uint8)
        for seed in range(10):
            shown = frames(OcclusionWrapper(Camera(white), size=0.4, count=1), seed)
            assert same(shown[:1] * 4, shown)
            covered = (shown[0] == 0).all(axis=2)
            for axis in (0, 1):
                assert 20 <= covered.any(axis=axis).sum() <= 41

    def test_cutout_moves_every_step(self):
        white = np.full((100, 100, 3), 255, np.uint8)
        shown = frames(CutoutWrapper(Camera(white), size=0.4), 0, 9)
        assert len({frame.tobytes() for frame in shown}) == 10

    def test_the_patch_moves_evenly_within_the_image_and_turns_at_its_edges(self):
        white = np.full((100, 200, 1), 255, np.uint8)
        env = MovingPatchWrapper(Camera(white), size=0.1, speed=0.05, opacity=1)
        for seed in range(5):
            corners = []
            for frame in frames(env, seed, 60):
                rows, columns = np.nonzero(frame[:, :, 0] == 0)
                assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (10, 20)
                corners.append((rows.min() / 100, columns.min() / 200))
            ways = np.linalg.norm(np.diff(corners, axis=0), axis=1)
            assert np.median(ways) == pytest.approx(0.05, abs=0.008)
            assert ways.max() < 0.065
            directions = np.sign(np.diff(corners, axis=0))
            assert any(len(set(column) - {0.0}) == 2 for column in directions.T)  # it bounced

    @given(st.floats(-50, 50), st.floats(0.01, 1))
    def test_bouncing_stays_between_the_walls_and_keeps_the_speed(self, position, limit):
        here, there = pixels.bounce(np.array([position, position + 1e-3]), limit)
        assert -1e-9 <= here <= limit + 1e-9
        assert abs(there - here) <= 1e-3 + 1e-9
        assert pixels.bounce(np.array([position]), 0) == 0

    def test_opacity_lets_the_image_through(self):
        image = np.full((10, 10, 3), 100, np.uint8)
        env = OcclusionWrapper(Camera(image), size=1, count=1, color=200, opacity=0.5)
        assert set(np.unique(frames(env, 0)[0])) == {100, 150}

    def test_a_colour_becomes_its_luma_on_a_grey_frame(self):
        env = MovingPatchWrapper(Camera(np.full((10, 10, 1), 255, np.uint8)), size=1, color=(255, 0, 0))
        assert np.unique(frames(env, 0)[0]) == 76


class TestFilters:
    @given(st.integers(-6, 6), st.integers(-6, 6))
    def test_a_shift_is_a_crop_of_the_padded_image(self, down, right):
        image = picture((5, 7, 3))
        padded = np.pad(image, ((6, 6), (6, 6), (0, 0)), "edge")
        expected = padded[6 - down : 11 - down, 6 - right : 13 - right]
        np.testing.assert_array_equal(pixels.shift(image, down, right), expected)

    def test_shifts_reach_pad_and_no_further_in_all_directions(self):
        image = np.zeros((9, 9, 1), np.uint8)
        image[4, 4] = 255
        env = RandomShiftWrapper(Camera(image), pad=2)
        places = {tuple(np.argwhere(frame[:, :, 0])[0] - 4) for frame in frames(env, 0, 600)}
        assert places == {(y, x) for y in range(-2, 3) for x in range(-2, 3)}

    @pytest.mark.parametrize("channels", [1, 3])
    def test_convolution_is_that_of_scipy(self, channels):
        image, rng = picture((9, 6, channels)), np.random.default_rng(1)
        kernel = rng.normal(size=(channels, 3, 3, channels)) / 5
        expected = np.full(image.shape, 127.5)
        for c in range(channels):
            for d in range(channels):
                expected[:, :, d] += ndimage.correlate(image[:, :, c] - 127.5, kernel[c, :, :, d], mode="nearest")
        shown = pixels.convolve(image, kernel, 127.5)
        np.testing.assert_allclose(shown, expected.clip(0, 255), atol=0.51)

    def test_random_convolution_keeps_the_spread_of_the_image(self):
        flat = np.full((4, 4, 3), (90, 128, 160), np.uint8)
        shown = np.array([frames(RandomConvWrapper(Camera(flat)), seed, 0)[0][0, 0] for seed in range(400)]) - 127.5
        expected = np.sqrt(np.mean((np.array([90, 128, 160]) - 127.5) ** 2))
        assert shown.std() == pytest.approx(expected, rel=0.1)

    def test_blur_is_gaussian(self):
        image = np.zeros((41, 41, 1), np.uint8)
        image[20, 20] = 255
        image = ndimage.grey_dilation(image, (9, 9, 1))
        shown = frames(BlurWrapper(Camera(image), sigma=3), 0)[0]
        expected = ndimage.gaussian_filter(image.astype(float), (3, 3, 0))
        np.testing.assert_allclose(shown, expected, atol=4)

    def test_resolution_leaves_blocks_of_means(self):
        image = picture((8, 8, 1))
        shown = frames(ResolutionWrapper(Camera(image), reduction=0.75), 0)[0]
        means = image.reshape(2, 4, 2, 4).mean(axis=(1, 3))
        np.testing.assert_allclose(shown[:, :, 0], np.kron(means, np.ones((4, 4))), atol=0.51)

    def test_no_resolution_left_is_one_pixel(self):
        shown = frames(ResolutionWrapper(Camera(picture()), reduction=1), 0)[0]
        assert len(np.unique(shown.reshape(-1, 3), axis=0)) == 1
