"""PushT: the contract of all envs, the recordings of the public implementation, and what is its own."""

from __future__ import annotations

import copy
import json
import math
import pickle
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from envs.contract import SEEDS, RestorableContract, assert_same, columns, goal_columns, is_same
from gymnasium.utils.env_checker import check_env
from PIL import Image

from stable_worldmodel.envs.pusht import PushT, PushTDiscrete
from stable_worldmodel.envs.pusht.physics import INNER
from stable_worldmodel.envs.pusht.shapes import NAMES, SHAPES, figure
from stable_worldmodel.errors import ContractError
from stable_worldmodel.utils import flatten_dict

DATA = Path(__file__).parents[1] / "data" / "pusht"
RECORDED = json.loads((DATA / "pusht.json").read_text())
GOAL = [60, 60, 400, 200, 0, 0, 0]
INERT = {
    "goal.scale": "the overlay has the block's shapes",
    "agent.angle": "a disc looks the same from all sides",
}


class PushTContract(RestorableContract):
    """The observation is a dict; its keys are lifted into the info, as World does it."""

    class Lifted:
        def reset(self, **kwargs: Any) -> Any:
            observation, info = super().reset(**kwargs)
            return self._flat(observation), {**info, **observation}

        def step(self, action: Any) -> Any:
            observation, reward, terminated, truncated, info = super().step(action)
            return self._flat(observation), reward, terminated, truncated, {**info, **observation}

        def _flat(self, observation: dict) -> np.ndarray:
            assert self.declared.contains(observation) or not self._bounded
            return np.concatenate(list(observation.values()))

    base: type = PushT

    def make(self, size: tuple[int, int] | None = (32, 32)) -> Any:
        env = _LIFTED[self.base](**self.kwargs)
        env.declared = env.observation_space
        env.observation_space = gym.spaces.Box(-np.inf, np.inf, (11,), np.float64)
        if size is not None:
            env.render_shape = size
        return env

    def test_gymnasium_finds_no_fault(self) -> None:
        # On the class itself, since what `make` returns has another observation. Gymnasium wants nothing to be
        # returned in a window's mode; published code relies on the picture.
        env = self.base(**self.kwargs)
        env.render_shape = (32, 32)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", message=".*symmetric and normalized")  # absolute actions are px
            check_env(env, skip_render_check=True)

    def _has_effect(self, env: Any, name: str) -> bool:
        """With the goal held: it follows the seed, whatever varies."""
        values = {key: value for key, value in self.revealing.items() if key != name}
        options = {"variation_values": values, "goal_state": GOAL}
        plain = self.record(env, 0, {"variation": [], **options})
        return any(not is_same(plain, self.record(env, seed, {"variation": [name], **options})) for seed in SEEDS)

    def test_registered_id_makes_this_class(self) -> None:
        env = gym.make(self.id, render_mode="rgb_array", **self.kwargs)
        assert type(env.unwrapped) is self.base
        observation, info = env.reset(seed=0)
        assert env.observation_space.contains(observation)
        assert not observation.keys() & info.keys()
        env.step(env.action_space.sample())


class _LiftedPushT(PushTContract.Lifted, PushT):
    pass


class _LiftedDiscrete(PushTContract.Lifted, PushTDiscrete):
    pass


_LIFTED = {PushT: _LiftedPushT, PushTDiscrete: _LiftedDiscrete}


class TestPushT(PushTContract):
    id = "swm/PushT-v1"
    inert = INERT


class TestBoundedPushT(PushTContract):
    id = "swm/PushT-v1"
    kwargs = {"bounded": True}  # noqa: RUF012
    revealing = {"agent.shape": 2, "agent.scale": 25}  # noqa: RUF012
    inert = {"goal.scale": INERT["goal.scale"]}  # noqa: RUF012


class TestAbsolutePushT(PushTContract):
    id = "swm/PushT-v1"
    kwargs = {"relative": False}  # noqa: RUF012
    inert = INERT


class TestDiscretePushT(PushTContract):
    id = "swm/PushT-Discrete-v1"
    base = PushTDiscrete
    inert = INERT


class TestPublicPushT(PushTContract):
    id = "swm/PushT-v1"
    kwargs = {"compat": "public"}  # noqa: RUF012
    inert = INERT

    def test_a_restored_row_goes_on_as_it_was_recorded(self) -> None:
        pytest.skip("published resets simulate one substep, so no state is restored exactly")


def make(size: tuple[int, int] = (16, 16), **kwargs: Any) -> PushT:
    env = PushT(**kwargs)
    env.render_shape = size
    return env


def reset_to(env: PushT, state: Any = None, goal_state: Any = None, **values: Any) -> dict[str, Any]:
    given = {name.replace("__", "."): value for name, value in values.items()}
    options = {"variation": [], "variation_values": given, "state": state, "goal_state": goal_state}
    observation, info = env.reset(seed=0, options=options)
    return {**observation, **info}


def turn(first: Any, second: Any) -> Any:
    """Difference of angles."""
    return np.abs((np.subtract(first, second) + math.pi) % (2 * math.pi) - math.pi)


# ---------------------------------------------------------------------- recordings of the public implementation
@pytest.mark.parametrize("compat", [None, "public"])
@pytest.mark.parametrize("case", RECORDED["cases"], ids=lambda case: case["name"])
def test_trajectory_is_the_recorded_one(case: dict, compat: str | None) -> None:
    data = np.load(DATA / "pusht.npz")
    steps = {k: data[f"{case['name']}/{k}"] for k in ("actions", "state", "reward", "terminated", "n_contacts")}
    values = {k: np.array(v) if isinstance(v, list) else v for k, v in case["variation_values"].items()}
    env = make(relative=case["relative"], compat=compat)
    if "Discrete" in case["env_id"]:
        env = PushTDiscrete(resolution=16, compat=compat)
    goal = np.array(case["goal_state"]) if "goal_state" in case else GOAL
    options = {"variation": [], "variation_values": values, "goal_state": goal}
    observation, _ = env.reset(seed=0, options={**options, "state": data[f"{case['name']}/initial_state"]})
    np.testing.assert_allclose(observation["state"], data[f"{case['name']}/initial_state"], atol=1e-9)
    for t, action in enumerate(steps["actions"]):
        observation, reward, terminated, truncated, info = env.step(action)
        state, recorded = observation["state"], steps["state"][t]
        np.testing.assert_allclose(state[:4], recorded[:4], atol=1e-3)
        np.testing.assert_allclose(state[5:], recorded[5:], atol=0.1)
        assert turn(state[4], recorded[4]) < 1e-4
        if "goal_state" in case:
            assert reward == pytest.approx(steps["reward"][t], abs=0.2)
            assert (terminated, truncated) == (steps["terminated"][t], False)
        assert info["n_contacts"] == steps["n_contacts"][t]


REFERENCE = {
    "free": (
        (100, 100, 250, 250, 0),
        [(1, 0), (1, 0), (0, 1), (0, 0), (0, 0)],
        {},
        {
            0: (129.56718, 100, 250, 250, 0),
            1: (170.33328, 100, 250, 250, 0),
            2: (181.45882, 129.56718, 250, 250, 0),
            3: (181.38592, 140.76610, 250, 250, 0),
            4: (181.38640, 140.69272, 250, 250, 0),
        },
    ),
    "bar of T": (
        (150, 280, 256, 256, 0),
        [(0.8, 0)] * 6,
        {},
        {
            0: (173.65374, 280, 256, 256, 0),
            1: (206.26662, 280, 283.37661, 257.31239, 0.13058),
            2: (238.82079, 280, 302.38309, 254.11910, 0.31478),
            3: (271.37535, 280, 314.98753, 250.61056, 0.41458),
            4: (303.92990, 280, 351.60104, 256.02249, 0.52907),
            5: (336.48446, 280, 387.54214, 263.09485, 0.66912),
        },
    ),
    "diagonal": (
        (200, 160, 256, 200, 0.5),
        [(0.3, 0.6)] * 8,
        {},
        {
            0: (None, None, 250.47375, 207.48637, 0.38085),
            3: (None, None, 230.59260, 263.16910, 0.17637),
            7: (294.34758, 348.69518, 233.38867, 317.82088, 0.66270),
        },
    ),
    "I": (
        (150, 280, 256, 256, 0.3),
        [(0.8, 0.1)] * 5,
        {"block__shape": 5},
        {
            2: (None, None, 267.04305, 257.68186, 6.25345),
            3: (None, None, 284.16159, 253.76740, 5.82431),
            4: (None, None, 293.40006, 247.60789, 5.51418),
        },
    ),
    "Z": (
        (150, 280, 256, 256, 0.3),
        [(0.8, 0.1)] * 5,
        {"block__shape": 3},
        {
            2: (None, None, 259.59454, 251.04783, 0.31491),
            3: (None, None, 261.41911, 245.41906, 0.29190),
            4: (None, None, 262.04046, 243.20399, 0.24627),
        },
    ),
    "square into the wall": (
        (300, 270, 440, 256, 0),
        [(0.8, 0)] * 6,
        {"block__shape": 4},
        {
            3: (None, None, 462.92296, 252.16606, 5.97794),
            4: (None, None, 475.75852, 248.35913, 0.01518),
            5: (None, None, 474.09569, 237.04884, 0.01727),
        },
    ),
}
CONTACTS = {"bar of T": [0, 1, 1, 2, 2, 2], "square into the wall": [None, None, None, 1, 3, 3]}


@pytest.mark.parametrize("name", REFERENCE)
def test_published_reference_points(name: str) -> None:
    start, actions, values, expected = REFERENCE[name]
    # The agent of "diagonal" overlaps the block, which published resets push away.
    env = make(compat="public" if name == "diagonal" else None)
    reset_to(env, (*start, 0, 0), GOAL, **values)
    for t, action in enumerate(actions):
        state, reward, _, _, info = env.step(np.array(action, np.float32))
        for found, value in zip(state["state"], expected.get(t, ()), strict=False):
            assert value is None or found == pytest.approx(value, abs=1e-3)
        if name in CONTACTS and CONTACTS[name][t] is not None:
            assert info["n_contacts"] == CONTACTS[name][t]
        if name == "free" and t < 2:
            assert info["vel_agent"][0] == pytest.approx((374.14764, 371.69614)[t], abs=1e-3)
            assert t or reward == pytest.approx(-414.0363, abs=1e-3)


@pytest.mark.parametrize("frame", RECORDED["frames"], ids=lambda frame: frame["file"])
def test_picture_is_the_recorded_one(frame: dict) -> None:
    env = make((224, 224))
    values = {name.replace(".", "__"): value for name, value in frame["variation_values"].items()}
    reset_to(env, frame["state"], frame["goal_state"], **values)
    recorded = np.asarray(Image.open(DATA / frame["file"])).astype(int)
    assert np.abs(env.render() - recorded).mean() < 0.5  # a block moved by 8 px: more than 1


@pytest.mark.parametrize("shape", range(1, 8))
def test_motion_is_that_of_the_engine_s_public_interface_to_the_bit(shape: int) -> None:
    env, public = make(), make()
    for e in (env, public):
        reset_to(e, (150, 280, 256, 256, 0.3, 0, 0), GOAL, block__shape=shape)
    agent, block, space = public.agent, public.block, public.space
    contacts = 0
    for _ in range(15):
        x, y = agent.position
        target = (x + 60.0, y - 5.0)
        for _ in range(10):
            (x, y), (vx, vy) = agent.position, agent.velocity
            vx += (100.0 * (target[0] - x) - 20.0 * vx) * 0.01
            vy += (100.0 * (target[1] - y) - 20.0 * vy) * 0.01
            agent.velocity = (vx, vy)
            space.step(0.01)
        block.position = tuple(block.position)
        info = env.step(np.array([0.6, -0.05]))[4]
        assert info["pos_agent"].tolist() == list(agent.position)
        assert info["vel_agent"].tolist() == list(agent.velocity)
        assert info["block_pose"].tolist() == [*block.position, block.angle]
        contacts += info["n_contacts"]
    assert contacts


# ---------------------------------------------------------------------- shapes
@pytest.mark.parametrize(
    ("name", "center", "moment", "area"),
    [
        ("L", (22.5, 7.5), 3000, 3600),
        ("T", (0, 45), 3000, 6300),
        ("Z", (0, 0), 1650, 3600),
        ("square", (0, 0), 600, 3600),
        ("I", (0, 0), 1275, 3600),
        ("small_tee", (0, 30), 3150, 3600),
        ("+", (0, 0), 2250, 4500),
    ],
)
def test_mass_properties_are_the_published_ones(name, center, moment, area) -> None:
    env = make()
    reset_to(env, block__shape=NAMES.index(name))
    assert tuple(env.block.center_of_gravity) == pytest.approx(center)
    assert env.block.moment == pytest.approx(moment)
    assert sum(shape.area for shape in env.block.shapes) == pytest.approx(area)


def test_body_builders_add_to_the_space() -> None:
    env = make()
    reset_to(env, block__shape=4)
    for name in NAMES:
        body = env.add_shape(name, (100, 100), 0.0, scale=20)
        assert body in env.space.bodies
    box = env.add_box((300, 300), 40, 20, color=(1, 2, 3), scale=2)
    (shape,) = box.shapes
    assert (shape.bb.right - shape.bb.left, shape.area, shape.color[:3]) == (80, 3200, (1, 2, 3))
    with pytest.raises(ContractError, match="small_tee"):
        env.add_shape("teh", (0, 0), 0)


# ---------------------------------------------------------------------- spaces and factors
def test_spaces_are_the_specified_ones() -> None:
    space = make().observation_space
    np.testing.assert_array_equal(space["state"].low, [0, 0, 0, 0, 0, -512, -512])
    np.testing.assert_array_equal(space["state"].high, [512, 512, 512, 512, 2 * math.pi, 512, 512])
    np.testing.assert_array_equal(space["proprio"].low, [0, 0, -512, -512])
    np.testing.assert_array_equal(space["proprio"].high, [512] * 4)
    assert {box.dtype for box in space.values()} == {np.dtype(np.float64)}
    unit = gym.spaces.Box(-1, 1, (2,), np.float32)
    assert make().action_space == make(relative=False, compat="public").action_space == unit
    assert make(relative=False).action_space == gym.spaces.Box(0, 512, (2,), np.float32)
    assert PushTDiscrete().action_space == gym.spaces.MultiDiscrete([16, 16])


FACTORS = {
    "background.color": (0, 255, (3,), "u1", [255, 255, 255]),
    "goal.color": (0, 255, (3,), "u1", [144, 238, 144]),
    "goal.scale": (20, 60, (), "f4", 40),
    "goal.angle": (-2 * math.pi, 2 * math.pi, (), "f8", math.pi / 4),
    "goal.position": (50, 450, (2,), "f8", [256, 256]),
    "block.color": (0, 255, (3,), "u1", [119, 136, 153]),
    "block.scale": (20, 60, (), "f4", 30),
    "block.shape": (1, 7, (), "i8", 2),
    "block.angle": (-2 * math.pi, 2 * math.pi, (), "f8", 0),
    "block.start_position": (100, 400, (2,), "f8", [400, 100]),
    "agent.color": (0, 255, (3,), "u1", [65, 105, 225]),
    "agent.scale": (20, 60, (), "f4", 40),
    "agent.shape": (0, 7, (), "i8", 0),
    "agent.angle": (-2 * math.pi, 2 * math.pi, (), "f8", 0),
    "agent.start_position": (50, 450, (2,), "f8", [256, 400]),
    "agent.velocity": (-512, 512, (2,), "f8", [0, 0]),
    "rendering.render_goal": (0, 1, (), "i8", 1),
}


@pytest.mark.parametrize("public", [False, True])
def test_factors_are_the_specified_ones(public: bool) -> None:
    space = make(compat="public" if public else None).variation_space
    assert space.names() == list(FACTORS)
    assert [name for name in space.sampling_order if "." not in name] == [
        "background", "goal", "block", "agent", "rendering",
    ]  # fmt: skip
    for name, (low, high, shape, dtype, default) in FACTORS.items():
        factor = space.factor(name)
        if isinstance(factor, gym.spaces.Discrete):
            assert (factor.start, factor.start + factor.n - 1) == (low, high)
        else:
            low = 0 if public and name == "agent.velocity" else low
            assert factor.low == pytest.approx(np.full(shape, low))
            assert factor.high == pytest.approx(np.full(shape, high))
        assert (factor.shape, factor.dtype) == (shape, np.dtype(dtype))
        np.testing.assert_array_equal(factor.init_value, np.array(default, dtype))


@pytest.mark.parametrize("variation", [None, ["all"], ["block.angle"], ["block.shape", "block.scale"]])
def test_drawn_starts_and_goals_are_free_of_contact(variation) -> None:
    env = make()
    for seed in range(60):
        options = {} if variation is None else {"variation": variation}
        _, info = env.reset(seed=seed, options=options)
        for state in (info["goal_state"], env.variation_space.start_state()):
            assert not env._probe.marks(tuple(state[:2]), tuple(state[2:5])), seed
            x0, x1, y0, y1 = env.variation_space.block().extent(state[4])
            assert INNER[0] < state[2] + x0 < state[2] + x1 < INNER[1]
            assert INNER[0] < state[3] + y0 < state[3] + y1 < INNER[1]


def test_given_starts_may_overlap_and_others_make_way() -> None:
    env = make()
    both = {"agent.start_position": (250, 260), "block.start_position": (250, 250)}
    _, info = env.reset(seed=0, options={"variation_values": both})
    assert (info["pos_agent"].tolist(), info["block_pose"][:2].tolist()) == ([250, 260], [250, 250])
    for name, value in both.items():
        for seed in range(20):
            _, info = env.reset(seed=seed, options={"variation": [], "variation_values": {name: value}})
            assert not env._probe.marks(tuple(info["pos_agent"]), tuple(info["block_pose"]))


def test_default_block_is_moved_off_the_wall() -> None:
    info = reset_to(make(), block__angle=-math.pi / 2)  # the stem, 120 px long, points right
    assert info["block_pose"][:2] == pytest.approx([383, 100])


def test_public_starts_are_drawn_anywhere() -> None:
    env = make(compat="public")
    moved = 0
    for seed in range(100):
        _, info = env.reset(seed=seed)
        moved += not np.allclose(info["pos_agent"], env.variation_space.value_of("agent.start_position"))
        moved += not np.allclose(
            info["block_pose"][:2], env.variation_space.value_of("block.start_position"), atol=1e-2
        )
    assert 5 <= moved <= 30  # published: 13 %


# ---------------------------------------------------------------------- motion
def test_reset_returns_exactly_the_requested_states() -> None:
    env = make()
    for seed in range(20):
        _, info = env.reset(seed=seed, options={"variation": ["all"]})
        np.testing.assert_array_equal(info["pos_agent"], env.variation_space.value_of("agent.start_position"))
        np.testing.assert_array_equal(info["vel_agent"], env.variation_space.value_of("agent.velocity"))
        pose = [*env.variation_space.value_of("block.start_position"), env.variation_space.value_of("block.angle")]
        np.testing.assert_array_equal(info["block_pose"], pose)


def test_a_goal_that_overlaps_leaves_no_trace_in_the_start() -> None:
    state, action = (150, 280, 256, 256, 0.3, 0, 0), np.array([0.8, 0.0])
    rows = []
    for goal in (GOAL, (256, 256, 256, 256, 0, 0, 0)):
        env = make()
        reset_to(env, state, goal)
        rows.append([env.step(action)[0]["state"] for _ in range(5)])
    np.testing.assert_array_equal(rows[0], rows[1])


@pytest.mark.parametrize("shape", range(8))
def test_every_agent_obeys_the_same_control_law(shape: int) -> None:
    env = make()
    reset_to(env, (100, 300, 400, 100, 0, 0, 0), GOAL, agent__shape=shape)
    state = env.step(np.array([1.0, 0.0]))[0]["state"]
    assert state[0] - 100 == pytest.approx(29.567179, abs=1e-5)
    assert state[5] == pytest.approx(374.147656, abs=1e-5)
    assert tuple(env.agent.position) == tuple(state[:2])


def test_published_agents_that_are_no_discs_are_dynamic() -> None:
    env = make(compat="public")
    reset_to(env, (100, 300, 400, 100, 0, 0, 0), GOAL, agent__shape=4)
    state = env.step(np.array([1.0, 0.0]))[0]["state"]
    assert state[0] - 100 == pytest.approx(9.56, abs=0.01)
    assert state[5] == 0


@pytest.mark.parametrize("shape", [0, 2, 4])
def test_bounded_agent_stays_in_the_arena(shape: int) -> None:
    env = make(bounded=True)
    rng = np.random.default_rng(0)
    reset_to(env, (250, 250, 100, 250, 0, 0, 0), GOAL, agent__shape=shape)
    x0, x1, y0, y1 = figure(shape, 40.0).extent(0.0)
    for _ in range(60):
        heading = rng.uniform(-3, 3, 2)
        for _ in range(6):
            observation = env.step(heading)[0]
            x, y = observation["state"][:2]
            assert INNER[0] - 1e-9 <= x + x0
            assert x + x1 <= INNER[1] + 1e-9
            assert INNER[0] - 1e-9 <= y + y0
            assert y + y1 <= INNER[1] + 1e-9


def test_unbounded_agent_leaves_the_arena() -> None:
    env = make()
    reset_to(env, (480, 250, 100, 250, 0, 0, 0), GOAL)
    for _ in range(3):
        observation = env.step(np.array([1.0, 0.0]))[0]
    assert observation["state"][0] > 520


def test_clipping_actions_is_optional() -> None:
    moved = []
    for clip in (False, True):
        env = make(clip_action=clip)
        reset_to(env, (100, 300, 400, 100, 0, 0, 0), GOAL)
        moved.append(env.step(np.array([2.0, 0.0]))[0]["state"][0] - 100)
    assert moved == pytest.approx([2 * 29.567179, 29.567179], abs=1e-5)


def test_damping_and_center_of_gravity_can_be_overridden() -> None:
    env = make(damping=0.5, block_cog=(1.0, 2.0))
    reset_to(env)
    assert (env.space.damping, tuple(env.block.center_of_gravity)) == (0.5, (1.0, 2.0))


@pytest.mark.parametrize("action", [[0.0], [[0.0, 0.0]], [np.nan, 0.0], [np.inf, 0.0]])
def test_bad_actions_are_refused(action) -> None:
    env = make()
    env.reset(seed=0)
    with pytest.raises(ContractError, match="action"):
        env.step(np.array(action))


def test_bins_that_do_not_exist_are_refused() -> None:
    env = PushTDiscrete()
    env.reset(seed=0)
    for bins in ([16, 0], [0, -1], [0.5, 0]):
        with pytest.raises(ContractError, match="bins"):
            env.step(np.array(bins))
    with pytest.raises(ContractError, match="relative"):
        PushTDiscrete(relative=False)


def test_step_and_render_need_a_reset() -> None:
    for call in (lambda env: env.step(np.zeros(2)), PushT.render, lambda env: env.space):
        with pytest.raises(gym.error.ResetNeeded, match="reset"):
            call(make())


@pytest.mark.parametrize("kwargs", [{"render_mode": "ansi"}, {"compat": "old"}, {"init_value": {"a.b": 1}}])
def test_constructor_refuses_unknown_choices(kwargs) -> None:
    with pytest.raises(ContractError):
        PushT(**kwargs)


def test_copies_go_on_bit_for_bit_within_an_episode() -> None:
    env = make()
    reset_to(env, (150, 280, 256, 256, 0.7, 0, 0), GOAL)
    env.step(np.array([0.5, 0.0]))
    twins = [copy.deepcopy(env), pickle.loads(pickle.dumps(env))]
    for _ in range(6):
        expected = env.step(np.array([0.8, 0.0]))[0]["state"]
        for twin in twins:
            np.testing.assert_array_equal(twin.step(np.array([0.8, 0.0]))[0]["state"], expected)
            np.testing.assert_array_equal(twin.render(), env.render())
    assert env._info()["n_contacts"]


# ---------------------------------------------------------------------- success and goals
@pytest.mark.parametrize(("shape", "period"), [(1, 360), (2, 360), (3, 180), (4, 90), (5, 180), (6, 360), (7, 90)])
def test_success_knows_the_symmetry_of_the_block(shape: int, period: int) -> None:
    env = make()
    reset_to(env, block__shape=shape)
    goal = np.array([100, 100, 250, 250, 0.1, 0, 0])
    for degrees in range(0, 360, 3):
        error = min(degrees % period, period - degrees % period)
        success, _ = env.eval_state(goal, goal + np.array([0, 0, 0, 0, math.radians(degrees), 0, 0]))
        assert success == (error < 20), degrees
        assert isinstance(success, bool)


def test_success_is_about_both_positions_together() -> None:
    env = make()
    reset_to(env)
    goal = np.array([100, 100, 250, 250, 0, 0, 0])
    assert env.eval_state(goal, goal + np.array([12, 0, 0, 15.9, 0, 0, 0]))[0]
    assert not env.eval_state(goal, goal + np.array([12, 0, 0, 16, 0, 0, 0]))[0]  # exactly 20
    assert env.eval_state(goal, goal + np.array([3, 0, 4, 0, 0, 12, 0])) == (True, 13.0)


def test_reaching_the_goal_terminates() -> None:
    env = make()
    info = reset_to(env, GOAL, GOAL)
    assert info["is_success"]
    _, reward, terminated, truncated, info = env.step(np.zeros(2))
    assert (reward, terminated, truncated, info["is_success"]) == (0.0, True, False, True)


def test_goals_follow_the_seed_and_stay_random_without_variation() -> None:
    env = make()
    goals = [env.reset(seed=seed, options={"variation": []})[1]["goal_state"] for seed in (1, 2, 1)]
    assert goals[0].tolist() == goals[2].tolist() != goals[1].tolist()
    assert env.sample_goal(5).tolist() == env.sample_goal(5).tolist() != env.sample_goal(6).tolist()
    assert env.sample_goal().tolist() != env.sample_goal().tolist()


def test_goal_picture_shows_the_goal_state() -> None:
    env = make((64, 64))
    info = reset_to(env)
    env._set_state(info["goal_state"])
    np.testing.assert_array_equal(info["goal"], env.render())
    env._set_goal_state((60, 60, 300, 300, 1.0))
    info = env.step(np.zeros(2))[4]
    assert info["goal_state"].tolist() == [60, 60, 300, 300, 1.0, 0, 0]
    assert info["goal_proprio"].tolist() == [60, 60, 0, 0]
    env._set_state(info["goal_state"])
    np.testing.assert_array_equal(info["goal"], env.render())


@pytest.mark.parametrize("state", [(1, 2, 3), (np.nan,) * 7])
def test_states_of_another_form_are_refused(state) -> None:
    for option in ("state", "goal_state"):
        with pytest.raises(ContractError, match=option):
            make().reset(seed=0, options={option: state})


def test_fix_action_sample_aims_near_the_block() -> None:
    for env in (make(), PushTDiscrete(resolution=8), make(relative=False)):
        reset_to(env, (200, 200, 256, 256, 0, 0, 0), GOAL)
        plain = type(env)(relative=env.relative).action_space
        env.fix_action_sample()
        env.action_space.seed(0)
        for _ in range(30):
            action = env.action_space.sample()
            assert plain.contains(action)
            if not isinstance(env, PushTDiscrete):
                target = 200 + 100 * action if env.relative else action
                assert (np.abs(target - 256) < 50.1).all()


# ---------------------------------------------------------------------- restoring
def rows_of(env: PushT, actions: list[Any], seed: int) -> list[dict]:
    observation, info = env.reset(seed=seed, options={"variation": ["all"]})
    factors = {f"variation.{name}": value for name, value in flatten_dict(env.variation_space.value).items()}
    rows = [{**observation, **info, **factors}]
    for action in actions:
        observation, _, _, _, info = env.step(action)
        rows.append({**observation, **info, **factors})
    return rows


def test_every_row_without_contact_goes_on_bit_for_bit() -> None:
    env, other = make(), make()
    rng = np.random.default_rng(0)
    actions = [rng.uniform(-1, 1, 2) for _ in range(20)]
    tested = 0
    for seed in range(12):
        rows = rows_of(env, actions, seed)
        quiet = [t for t in range(1, 20) if not any(row["n_contacts"] for row in rows[t - 1 : t + 1])]
        for start in quiet[::5]:
            options = other.reset_options_from_dataset(columns(rows[start]), goal_columns(rows[-1]))
            observation, info = other.reset(seed=1, options=options)
            assert_same([{**observation, "pose": info["block_pose"]}],
                        [{**{k: rows[start][k] for k in observation}, "pose": rows[start]["block_pose"]}])  # fmt: skip
            stop = next((t for t in range(start, 20) if rows[t]["n_contacts"]), 20)
            for t in range(start, min(stop + 1, 20)):
                observation, _, _, _, info = other.step(actions[t])
                np.testing.assert_array_equal(observation["state"], rows[t + 1]["state"])
                tested += 1
    assert tested > 100


def test_rows_in_contact_go_on_closely() -> None:
    env, other = make(), make()
    rng = np.random.default_rng(1)
    errors = []
    for seed in range(20):
        reset = env.reset(seed=seed)[1]
        heading = (reset["block_pose"][:2] - reset["pos_agent"]) / 300
        actions = [heading + rng.uniform(-0.1, 0.1, 2) for _ in range(20)]
        rows = [env.reset(seed=seed)[0]]
        steps = [env.step(action) for action in actions]
        rows += [{**step[0], **step[4]} for step in steps]
        for t in range(1, 20):
            if rows[t]["n_contacts"]:
                options = other.reset_options_from_dataset(rows[t], {"goal_state": rows[t]["goal_state"]})
                other.reset(seed=0, options=options)
                errors.append(np.abs(other.step(actions[t])[0]["state"][2:4] - rows[t + 1]["state"][2:4]).max())
    assert len(errors) > 50
    assert np.quantile(errors, 0.85) < 1e-6  # px in a step in which the block is pushed by up to 40
    assert np.mean(errors) < 1.0


def test_states_without_velocity_and_single_precision_restore() -> None:
    env = make()
    row = {"state": np.array([100, 120, 250, 260, 1.5], np.float32)}
    options = env.reset_options_from_dataset(row, {"goal_state": np.arange(7)[None]})
    observation, info = env.reset(seed=0, options=options)
    assert observation["state"].tolist() == [100, 120, 250, 260, 1.5, 0, 0]
    assert info["goal_state"].tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_a_row_of_published_data_that_overlaps_restores() -> None:
    env = make()
    row = {
        "state": np.array([250, 250, 250, 250, 0, 0, 0.0]),
        "variation.agent.start_position": np.array([250, 250.0]),
        "variation.block.start_position": np.array([250, 250.0]),
        "variation.block.scale": np.array([40.0], np.float32),
    }
    observation, _ = env.reset(seed=0, options=env.reset_options_from_dataset(row, {"goal_state": row["state"]}))
    np.testing.assert_array_equal(observation["state"], row["state"])
    assert env.setup().block.scale == 40


def test_shapes_cover_the_names() -> None:
    assert ("o", *SHAPES) == NAMES
