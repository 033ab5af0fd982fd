"""Evaluations as values: protocols, pairs, floors, blocks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector.utils import batch_space
from hypothesis import given
from hypothesis import strategies as st

from stable_worldmodel.data import load_dataset
from stable_worldmodel.errors import ContractError, NotFoundError
from stable_worldmodel.evaluation import Evaluation, NoopPolicy, sample_pairs
from stable_worldmodel.evaluation.evaluation import from_dict
from stable_worldmodel.evaluation.names import SOLVERS

ENV = "swm/TwoRoom-v1"


def assert_same(one, other) -> None:
    for key in ("episode_successes", "episode_lengths", "episode_returns", "seeds"):
        np.testing.assert_array_equal(one[key], other[key], err_msg=key)


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=30),
    count=st.integers(1, 60),
    offset=st.integers(1, 20),
    seed=st.integers(0, 5),
)
def test_pairs_stay_inside_their_episodes_and_use_all_of_them(lengths, count, offset, seed) -> None:
    usable = [e for e, length in enumerate(lengths) if length > offset]
    if not usable:
        with pytest.raises(ContractError, match="goal_offset"):
            sample_pairs(lengths, range(len(lengths)), count, offset, seed)
        return
    pairs = sample_pairs(lengths, range(len(lengths)), count, offset, seed)
    assert len(pairs) == count
    assert all(s >= 0 and s + offset < lengths[e] for e, s in zip(pairs.episodes, pairs.starts, strict=True))
    times = np.bincount(pairs.episodes, minlength=len(lengths))[usable]
    assert times.max() - times.min() <= 1
    assert pairs == sample_pairs(lengths, range(len(lengths)), count, offset, seed)


def test_the_recording_reaches_its_own_goals_and_doing_nothing_does_not(rooms: Path) -> None:
    replay = Evaluation.of("replay", dataset=rooms, episodes=20, goal_offset=15)
    assert replay.run()["success_rate"] == 100
    assert replace(replay, subject="noop").run()["success_rate"] < 50


def test_a_dataset_says_which_env_and_size(rooms: Path) -> None:
    evaluation = Evaluation.of("random", dataset=rooms)
    assert evaluation.protocol.env["id"] == ENV
    assert evaluation.protocol.image_shape == (32, 32)


@pytest.mark.parametrize("subject", ["random", "checkpoint"])
def test_blocks_of_any_width_score_the_same(subject: str, rooms: Path, checkpoint: Path) -> None:
    name = str(checkpoint) if subject == "checkpoint" else subject
    evaluation = Evaluation.of(name, dataset=rooms, episodes=5, goal_offset=10, eval_budget=6)
    whole = evaluation.run()
    in_blocks = replace(evaluation, num_envs=2).run()
    assert_same(whole, in_blocks)
    assert in_blocks.protocol["episodes_idx"] == whole.protocol["episodes_idx"]
    assert in_blocks["episode_count"] == 5


def test_floors_are_scored_on_the_held_out_pairs_of_their_checkpoint(checkpoint: Path, rooms: Path) -> None:
    leader = Evaluation.of(checkpoint)
    pairs = leader.run().protocol["episodes_idx"]
    floor = Evaluation(**{**vars(leader), "subject": "noop", "split_of": str(checkpoint)})
    assert floor.run().protocol["episodes_idx"] == pairs
    assert set(pairs) <= set(range(20, 30)), "only held-out episodes"
    alone = Evaluation(**{**vars(leader), "subject": "noop"})
    assert not set(alone.run().protocol["episodes_idx"]) <= set(range(20, 30))


def test_the_oracle_plans_with_the_environment(rooms: Path) -> None:
    results = Evaluation.of("oracle", dataset=rooms, episodes=4, goal_offset=15, eval_budget=30).run()
    assert results["success_rate"] == 100.0
    assert (
        Evaluation.of("noop", dataset=rooms, episodes=4, goal_offset=15, eval_budget=30).run()["success_rate"] < 100.0
    )


def test_a_checkpoint_alone_suffices(checkpoint: Path, rooms: Path) -> None:
    evaluation = Evaluation.of(checkpoint)
    results = evaluation.run()
    assert results["episode_count"] == 6
    assert set(results.protocol["episodes_idx"]) <= set(range(20, 30))  # held out
    assert results.protocol["policy"]["type"] == "world_model"
    assert Path(evaluation.protocol.dataset or "") == rooms
    again = from_dict(json.loads(json.dumps(results.protocol["evaluation"])))
    assert again == evaluation
    assert_same(again.run(), results)


def test_recorded_anew_under_factors(tmp_path: Path) -> None:
    evaluation = Evaluation.of(
        "replay", env=ENV, recorder="expert", variation=("agent.color",), episodes=6, goal_offset=5
    )
    results = evaluation.run(tmp_path)
    (recording,) = (tmp_path / "recordings").glob("*.h5")
    dataset = load_dataset(recording)
    assert len(np.unique(dataset.get_col_data("variation.agent.color"), axis=0)) > 1
    assert results["success_rate"] == 100
    written = recording.read_bytes()
    assert_same(replace(evaluation, num_envs=3).run(tmp_path), results)
    assert recording.read_bytes() == written


def test_without_a_recording_the_env_chooses(tmp_path: Path) -> None:
    evaluation = Evaluation.of("expert", env=ENV, episodes=4, variation=("agent.color",))
    results = evaluation.run(video=tmp_path)
    assert results["success_rate"] == 100
    assert results.protocol["options"] == {"variation": ["agent.color"]}
    assert len(list(tmp_path.glob("*.mp4"))) == 4


def test_videos_have_the_numbers_of_the_items(rooms: Path, tmp_path: Path) -> None:
    Evaluation.of("random", dataset=rooms, episodes=5, goal_offset=5, eval_budget=3, num_envs=2).run(video=tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"env_{i}.mp4" for i in range(5)]


@pytest.mark.parametrize(
    ("subject", "changes", "message"),
    [
        ("random", {}, "which environment"),
        ("random", {"env": ENV, "episodes": 0}, "episodes=0"),
        ("random", {"env": ENV, "num_envs": 0}, "num_envs=0"),
        ("random", {"env": ENV, "epsiodes": 3}, "epsiodes"),
        ("replay", {"env": ENV}, "repeats recorded actions"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(subject, changes, message) -> None:
    with pytest.raises(ContractError, match=message):
        Evaluation.of(subject, **changes)


def test_recorded_factors_cannot_be_varied(rooms: Path) -> None:
    with pytest.raises(ContractError, match="recorder='expert'"):
        Evaluation.of("random", dataset=rooms, variation=("agent.color",))


def test_a_missing_checkpoint_or_solver_is_named(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        Evaluation.of(tmp_path / "nowhere")
    with pytest.raises(ContractError, match="expected one of cem"):
        Evaluation.of(checkpoint, solver={"type": "magic"}).run()
    with pytest.raises(ContractError, match="num_sample"):
        Evaluation.of(checkpoint, solver={"type": "cem", "num_sample": 3}).run()


def test_single_values_of_the_planner_are_replaced(checkpoint: Path) -> None:
    saved = Evaluation.of(checkpoint).protocol
    changed = Evaluation.of(checkpoint, plan={"horizon": 3}, solver={"n_steps": 1}).protocol
    assert changed.plan == {**saved.plan, "horizon": 3}
    assert changed.solver == {**saved.solver, "n_steps": 1}


def test_another_solver_keeps_the_saved_values_that_it_takes(checkpoint: Path) -> None:
    assert Evaluation.of(checkpoint, solver={"type": "gradient", "n_steps": 3}).protocol.solver == {
        "type": "gradient",
        "num_samples": 8,
        "n_steps": 3,
    }
    assert Evaluation.of(checkpoint, solver={"type": "cem"}) == Evaluation.of(checkpoint)


# Those of continuous actions.
@pytest.mark.parametrize("kind", sorted(set(SOLVERS) - {"categorical_cem", "pgd"}))
def test_every_solver_plans_for_a_checkpoint(checkpoint: Path, kind: str) -> None:
    results = Evaluation.of(checkpoint, episodes=2, eval_budget=4, solver={"type": kind}).run()
    assert len(results["episode_successes"]) == 2


class _Pool:
    num_envs = 2

    def __init__(self, space: gym.Space):
        self.single_action_space = space
        self.action_space = batch_space(space, 2)


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (gym.spaces.Box(-1, 1, (2,)), [[0, 0], [0, 0]]),
        (gym.spaces.Box(0.5, 1, (1,)), [[0.5], [0.5]]),
        (gym.spaces.Discrete(3), [0, 0]),
        (gym.spaces.Discrete(3, start=4), [4, 4]),
    ],
)
def test_noop_is_a_legal_action(space: gym.Space, expected: list) -> None:
    policy = NoopPolicy()
    pool = _Pool(space)
    policy.set_env(pool)
    actions = policy.get_action({})
    assert actions.tolist() == expected
    assert all(action in space for action in actions)
