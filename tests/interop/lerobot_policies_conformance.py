"""Environments and policies of this library beside LeRobot's. `lerobot.sh` runs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.vector import SyncVectorEnv
from lerobot_setup import HUB  # before LeRobot
from lerobot_toys import ReachEnv, factories

# isort: split
import lerobot.envs.factory
import lerobot.envs.utils
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
from lerobot.policies.factory import make_pre_post_processors

import stable_worldmodel as swm
import stable_worldmodel.lerobot as ours


# ---------------------------------------------------------------------- environments
def test_lerobot_builds_an_environment_of_ours_from_the_hub(tmp_path) -> None:
    config = ours.make_env_config("two_room", observation_height=32, observation_width=48)
    folder = ours.export_env(config, tmp_path / "repo")
    HUB.add("us/two-room", {file.name: file.read_text() for file in folder.iterdir()})
    built = lerobot.envs.factory.make_env("us/two-room", n_envs=2, trust_remote_code=True, hub_cache_dir=str(tmp_path))
    mine = ours.make_env(config, 2)
    theirs, own = built["two_room"][0], mine["two_room"][0]
    try:
        (a, _), (b, _) = theirs.reset(seed=3), own.reset(seed=3)
        for _ in range(4):
            tensors, wanted = lerobot.envs.utils.preprocess_observation(a), ours.preprocess_observation(b)
            assert tensors.keys() == wanted.keys()
            for key, value in wanted.items():
                assert torch.equal(tensors[key], value), key
            action = own.action_space.sample()
            (a, reward, *_), (b, other, *_) = theirs.step(action), own.step(action)
            np.testing.assert_array_equal(reward, other)
        lerobot.envs.utils.check_env_attributes_and_types(theirs)
        assert theirs.call("task_description")[0] == config.task_description
    finally:
        ours.close_envs([built, mine])


def test_features_are_those_that_lerobot_derives() -> None:
    from lerobot.envs.configs import PushtEnv
    from lerobot.envs.utils import env_to_policy_features

    theirs = env_to_policy_features(PushtEnv())
    mine = ours.env_to_policy_features(ours.make_env_config("pusht"))
    assert {name: (f.type.value, tuple(f.shape)) for name, f in theirs.items()} == {
        name: (f.type.value, f.shape) for name, f in mine.items()
    }


# ---------------------------------------------------------------------- policies
INPUTS = {
    "observation.state": PolicyFeature(type=FeatureType.STATE, shape=(1,)),
    "observation.environment_state": PolicyFeature(type=FeatureType.ENV, shape=(1,)),
}
OUTPUTS = {"action": PolicyFeature(type=FeatureType.ACTION, shape=(1,))}


def act() -> ACTPolicy:
    torch.manual_seed(0)
    config = ACTConfig(
        input_features=INPUTS, output_features=OUTPUTS, device="cpu", chunk_size=5, n_action_steps=3, use_vae=False,
        dim_model=16, n_heads=2, dim_feedforward=16, n_encoder_layers=1, n_decoder_layers=1,
    )  # fmt: skip
    return ACTPolicy(config).eval()


def diffusion() -> DiffusionPolicy:
    torch.manual_seed(0)
    config = DiffusionConfig(
        input_features=INPUTS, output_features=OUTPUTS, device="cpu", horizon=8, n_action_steps=3, down_dims=(16, 32),
        diffusion_step_embed_dim=8, num_inference_steps=3, num_train_timesteps=10, n_groups=4,
    )  # fmt: skip
    return DiffusionPolicy(config).eval()


@pytest.fixture(params=[act, diffusion], ids=["act", "diffusion"])
def checkpoint(request, tmp_path) -> Path:
    """A policy with random weights as LeRobot saves it, with its processors."""
    policy = request.param()
    rng = np.random.default_rng(0)
    stats = {
        name: {stat: torch.tensor(rng.uniform(low, low + 1, 1).astype(np.float32)) for stat, low in
               {"mean": -0.5, "std": 0.5, "min": -3, "max": 2}.items()}
        for name in (*INPUTS, *OUTPUTS)
    }  # fmt: skip
    policy.save_pretrained(tmp_path)
    for pipeline in make_pre_post_processors(policy.config, dataset_stats=stats):
        pipeline.save_pretrained(tmp_path)
    return tmp_path


def play(policy, pre, post, seed: int) -> float:
    """The return of an episode in LeRobot's own loop."""
    env = ReachEnv()
    observation, _ = env.reset(seed=seed)
    policy.reset()
    total, done = 0.0, False
    while not done:
        keys = {"observation.state": "agent_pos", "observation.environment_state": "environment_state"}
        batch = {feature: torch.from_numpy(observation[key]) for feature, key in keys.items()}
        with torch.inference_mode():
            action = post(policy.select_action(pre(batch)))
        observation, reward, terminated, truncated, _ = env.step(action.numpy()[0])
        total += reward
        done = terminated or truncated
    return total


def test_lerobots_policy_acts_in_world_as_in_lerobot(checkpoint) -> None:
    adapter = ours.LeRobotPolicy(str(checkpoint))
    results = {}
    for count in (1, 3):
        with swm.World(SyncVectorEnv(factories(count)), goal_conditioned=False, verbose=0) as world:
            world.set_policy(adapter)
            results[count] = world.evaluate(episodes=6, seed=0)["episode_returns"]
    if isinstance(adapter.policy, DiffusionPolicy):  # draws noise: LeRobot's own stream is not a function of the seed
        assert (adapter.queue, np.isfinite(results[3]).all()) == ("policy", True)
        return
    assert adapter.queue == "chunks"
    expected = [play(adapter.policy, adapter.preprocessor, adapter.postprocessor, seed) for seed in range(6)]
    for found in results.values():
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_our_reading_of_the_processors_is_lerobots(checkpoint) -> None:
    adapter = ours.LeRobotPolicy(str(checkpoint))
    pre, post = ours.load_processors(checkpoint)
    batch = {name: torch.linspace(-1, 1, 4)[:, None] for name in INPUTS}
    theirs, mine = adapter.preprocessor(dict(batch)), pre(dict(batch))
    for name in INPUTS:
        torch.testing.assert_close(mine[name], theirs[name])
    action = torch.linspace(-1, 1, 4)[:, None]
    torch.testing.assert_close(post(action), adapter.postprocessor(action))
