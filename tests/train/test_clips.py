"""What a model asked for is what its batches hold."""

import dataclasses

import numpy as np
import pytest
import torch
import toy_envs
from hypothesis import given, settings
from hypothesis import strategies as st
from training_data import config_of, open_windows, write_squares

from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.policy import RandomPolicy
from stable_worldmodel.train import train
from stable_worldmodel.train.clips import Clips
from stable_worldmodel.train.columns import ClipDataset, fit_model
from stable_worldmodel.train.presets import PRESETS
from stable_worldmodel.wm.registry import preset_config
from stable_worldmodel.wm.training import GoalDraw, Reads
from stable_worldmodel.world import World

LENGTHS = (17, 9, 13, 21, 15, 11, 19, 23)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_squares(tmp_path_factory.mktemp("clips") / "squares.h5", LENGTHS)


def open_clips(path, config, **where):
    dataset = open_windows(path, config)
    return Clips(config, dataset, fit_model(config, dataset), **where)


def first_batch(path, config):
    clips = open_clips(path, config)
    batch = {name: values.clone() for name, values in next(clips.batches(0, 1)).items()}
    clips.close()
    return batch


# -- columns ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "columns"),
    [
        ("lewm", {"pixels", "action"}),
        ("dreamer", {"pixels", "action", "reward", "terminated"}),
        ("tdmpc2", {"pixels", "action", "reward", "terminated"}),
        ("gcbc", {"pixels", "action", "goal_pixels", "goal_step"}),
        ("gcivl", {"pixels", "action", "goal_pixels", "goal_step", "actor_goal_pixels"}),
    ],
)
def test_a_batch_has_exactly_what_the_model_reads(path, model, columns):
    assert first_batch(path, config_of(model)).keys() == columns


def test_observed_columns_are_chosen_and_their_goals_come_along(path):
    batch = first_batch(path, config_of("gcbc", columns=("pixels", "proprio")))
    assert batch.keys() == {"pixels", "action", "proprio", "goal_pixels", "goal_proprio", "goal_step"}


def test_widths_are_those_of_the_dataset(path):
    config = config_of("tdmpc2", columns=("proprio", "reward"))
    model = fit_model(config, open_windows(path, config))
    assert (model.action_dim, model.images, model.inputs) == (4, [], {"proprio": 2, "reward": 1})


def test_widths_of_inputs_in_the_model_are_corrected(path):
    config = config_of("prejepa")
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, inputs={"proprio": 99}))
    assert fit_model(config, open_windows(path, config)).inputs == {"proprio": 2}


@pytest.mark.parametrize(
    ("model", "columns", "error", "message"),
    [
        ("lewm", ("pixels", "proprio"), ContractError, "lewm observes pixels alone"),
        ("prejepa", ("proprio",), ContractError, "prejepa observes the image column pixels"),
        ("gcbc", ("pixels", "velocity"), MissingKeyError, r"gcbc reads 'velocity'.*'proprio'"),
    ],
)
def test_what_cannot_be_observed_is_refused(path, model, columns, error, message):
    config = config_of(model, columns=columns)
    with pytest.raises(error, match=message):
        fit_model(config, open_windows(path, config))


def test_a_missing_reward_names_model_and_column(path):
    config = config_of("tdmpc2")
    dataset = open_windows(path, config)
    del dataset.columns["reward"]
    with pytest.raises(MissingKeyError, match="tdmpc2 reads 'reward', which the dataset does not have"):
        Clips(config, dataset, fit_model(config, dataset))


# -- rewards and ends -------------------------------------------------------------------------------------------------


@given(frameskip=st.integers(1, 4), num_steps=st.integers(1, 3))
@settings(max_examples=12, deadline=None)
def test_a_reward_is_the_sum_of_the_env_steps_that_lead_to_its_frame(path, frameskip, num_steps):
    config = config_of("tdmpc2", frameskip=frameskip, num_steps=num_steps)
    dataset = open_windows(path, config)
    clips = ClipDataset(dataset, Reads(("row", "episode", "reward", "terminated")), 0)
    batch = clips.get_batch(np.arange(len(clips)))
    for row, episode, reward, ended in zip(*(batch[name].flatten().tolist() for name in batch), strict=True):
        steps = range(max(row - frameskip + 1, 1), row + 1)  # row 0 has none
        assert reward == pytest.approx(sum(10 * episode + step for step in steps))
        assert ended == (row == LENGTHS[episode] - 1)


@pytest.fixture(scope="module")
def walks(tmp_path_factory):
    """Episodes of an env that terminates after 11 to 40 steps, step t with reward t."""
    path = tmp_path_factory.mktemp("walks") / "walks.h5"
    toy_envs.register()
    with World("toy/Walk-v0", 2, (8, 8), verbose=0, max_length=40) as world:
        world.set_policy(RandomPolicy(seed=0))
        world.collect(path, 40, seed=0, progress=False)
    return path


def all_clips(dataset, reads, **values):
    clips = ClipDataset(dataset, reads, 0, **values)
    return clips, {name: values.numpy() for name, values in clips.get_batch(np.arange(len(clips))).items()}


def test_the_end_of_an_episode_is_seen_whatever_the_frameskip(walks):
    config = config_of("tdmpc2", columns=("observation",), frameskip=5)
    assert config.to_end
    dataset = open_windows(walks, config)
    reads = fit_model(config, dataset).reads()
    whole, before = all_clips(dataset, reads)
    assert not before["terminated"].any()
    clips, batch = all_clips(dataset, reads, to_end=True)
    reach = (config.num_steps - 1) * config.frameskip
    assert batch["terminated"].sum() == np.count_nonzero(dataset.lengths > reach)
    assert not batch["terminated"][:, :-1].any()
    # A clip that ends is made of whole macro steps, the last action block alone is filler.
    actions, rewards = (dataset.get_col_data(name).reshape(-1) for name in ("action", "reward"))
    for (episode, start), ended, block, reward in zip(
        clips.clip_indices, batch["terminated"][:, -1], batch["action"], batch["reward"], strict=True
    ):
        first = dataset.offsets[episode] + start
        np.testing.assert_array_equal(block[:-1].ravel(), actions[first : first + reach])
        np.testing.assert_allclose(reward[-1], rewards[first + reach - 4 : first + reach + 1].sum())
        assert ended == (start + reach == dataset.lengths[episode] - 1)
        assert ended == np.isnan(block[-1]).all()
    # The clips that there were before are as they were.
    numbers = clips._index.number(*whole._index.locate(np.arange(len(whole))))
    for name, values in before.items():
        np.testing.assert_array_equal(batch[name][numbers], values)


def test_only_models_of_ends_have_clips_to_the_end(walks):
    assert [name for name in PRESETS if any(row.get("to_end") for row in PRESETS[name].values())] == ["tdmpc2"]
    dataset = open_windows(walks, config_of("tdmpc2", frameskip=5))
    for goals, windows in ((None, 4), (GoalDraw((0.5, 0, 0, 0.5)), 0)):
        clips = ClipDataset(dataset, Reads(("observation",), observed=("observation",), goals=goals), 0, to_end=True)
        more = clips._index.counts - dataset._index.counts
        assert set(more[dataset._index.counts > 0].tolist()) == {windows}


def test_a_model_trains_on_clips_to_the_end(walks, tmp_path):
    config = config_of("tdmpc2", columns=("observation",), frameskip=5)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, episodic=True))
    history = train(config, open_windows(walks, config), tmp_path).history
    assert all(np.isfinite(row["train/loss"]) for row in history)


# -- goals ------------------------------------------------------------------------------------------------------------


def goals_of(path, probabilities, frameskip=2, num_steps=4):
    config = config_of("gcbc", frameskip=frameskip, num_steps=num_steps)
    dataset = open_windows(path, config)
    reads = Reads(("row", "episode"), observed=("row", "episode"), goals=GoalDraw(probabilities, 0.9))
    clips = ClipDataset(dataset, reads, 0)
    return clips.get_batch(np.arange(len(clips)))


def test_future_goals_lie_behind_the_last_but_one_frame(path):
    batch = goals_of(path, (0, 0.5, 0.5, 0))
    assert (batch["goal_episode"][:, 0] == batch["episode"][:, 0]).all()
    assert (batch["goal_row"][:, 0] > batch["row"][:, -2]).all()
    assert set(batch["goal_step"].tolist()) > {3, 4}


def test_goal_step_is_the_frame_at_which_the_goal_lies(path):
    batch = goals_of(path, (0.3, 0.3, 0.2, 0.2))
    row, goal = batch["row"][:, 0], batch["goal_row"][:, 0]
    same = (batch["goal_episode"][:, 0] == batch["episode"][:, 0]) & ((goal - row) % 2 == 0) & (goal >= row)
    torch.testing.assert_close(batch["goal_step"], torch.where(same, (goal - row) // 2, -1))
    assert (~same).any()


def test_a_current_goal_is_the_last_but_one_frame(path):
    assert (goals_of(path, (0, 0, 0, 1))["goal_step"] == 2).all()


def test_goals_are_frames_of_the_own_part_of_the_split(path):
    config = config_of("gcivl", columns=("pixels", "episode"), scaler="none", val_fraction=0.5, batch_size=32)
    clips = open_clips(path, config)
    batches = {"train": clips.batches(0, 4 * clips.steps_per_epoch), "val": clips.val_batches()}
    for part, found in batches.items():
        goals = {int(episode) for batch in found for episode in batch["goal_episode"].flatten()}
        assert goals == set(clips.split[part].tolist())
    clips.close()


def test_goals_change_with_the_epoch_and_come_back_with_it(path):
    config = config_of("gcbc")
    clips = ClipDataset(open_windows(path, config), config.model.reads(), 0)
    drawn = []
    for epoch in (0, 1, 0):
        clips.set_epoch(epoch)
        drawn.append(clips.get_batch(np.arange(40))["goal_step"])
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])


# -- scaling ----------------------------------------------------------------------------------------------------------


def test_actions_are_mapped_to_the_unit_interval_by_their_range(path):
    action = first_batch(path, config_of("tdmpc2", batch_size=32))["action"]
    known = action[~action.isnan()]
    assert known.abs().max() <= 1
    assert known.abs().max() > 0.9


def test_bounds_of_the_action_space_are_used_where_the_dataset_knows_them(tmp_path):
    space = {"low": [-2.0, -4.0], "high": [2.0, 4.0]}
    path = write_squares(tmp_path / "d.h5", metadata={"action_space": space})
    clips = open_clips(path, config_of("tdmpc2"))
    np.testing.assert_allclose(clips.scalers["action"].transform(np.array([[1.0, 1.0]])), [[0.5, 0.25]])
    clips.close()


def test_goals_are_scaled_like_the_column_they_come_from(path):
    config = config_of("gcbc", columns=("pixels", "proprio"))
    clips = open_clips(path, config)
    raw = open_windows(path, config).get_col_data("proprio")
    batch = next(clips.batches(0, 1))
    for name in ("proprio", "goal_proprio"):
        back = clips.scalers["proprio"].inverse_transform(batch[name])
        assert min(np.abs(raw - row).max(axis=1).min() for row in back.reshape(-1, 2).numpy()) < 1e-4
    clips.close()


def test_single_columns_may_have_scalers_of_their_own(path):
    clips = open_clips(path, config_of("prejepa", columns=("pixels", "proprio"), scalers={"proprio": "none"}))
    assert {name: scaler.name for name, scaler in clips.scalers.items()} == {"action": "zscore", "proprio": "none"}
    clips.close()


# -- order ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_share_the_batches_that_one_would_see(path, world_size):
    config = config_of("gcbc", batch_size=8)
    whole = open_clips(path, config)
    parts = [open_clips(path, config, rank=rank, world_size=world_size) for rank in range(world_size)]
    start = whole.steps_per_epoch - 2  # across the end of an epoch
    assert {part.steps_per_epoch for part in parts} == {whole.steps_per_epoch}
    for batch, *mine in zip(*(clips.batches(start, start + 4) for clips in (whole, *parts)), strict=True):
        for name, values in batch.items():
            together = torch.stack([part[name] for part in mine], dim=1).flatten(0, 1)
            assert torch.equal(together.nan_to_num(), values.nan_to_num()), name
    for clips in (whole, *parts):
        clips.close()


def test_validating_does_not_disturb_the_order(path):
    config = config_of("gcivl")
    expected, clips = open_clips(path, config), open_clips(path, config)
    batches = clips.batches(0, 6)
    for number, batch in enumerate(expected.batches(0, 6)):
        found = next(batches)
        assert torch.equal(found["goal_pixels"], batch["goal_pixels"]), number
        if number in (1, 4):
            first = [values["pixels"].clone() for values in clips.val_batches()]
            again = [values["pixels"].clone() for values in clips.val_batches()]
            assert all(map(torch.equal, first, again))
    expected.close()
    clips.close()


def test_batches_that_do_not_divide_are_refused(path):
    config = config_of("lewm", batch_size=9, accumulate=2)
    with pytest.raises(
        ContractError, match="batch_size=9: expected a multiple of 2, for 1 processes with accumulate=2"
    ):
        open_clips(path, config)


def test_too_few_clips_are_refused(tmp_path):
    path = write_squares(tmp_path / "d.h5", (8, 8, 8))
    config = config_of("lewm", batch_size=32, accumulate=32)
    with pytest.raises(ContractError, match="have 2 clips for a batch of at least 32"):
        open_clips(path, config)


def test_every_config_says_what_it_reads():
    assert preset_config("tdmpc2", "debug", episodic=True).reads().columns[-1] == "terminated"
    assert "reward" not in preset_config("dreamer", "debug", behaviour=False).reads().columns
