"""Env configs: the registry, what they build, and the folder they travel in."""

from __future__ import annotations

import functools
import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import SyncVectorEnv
from lerobot_toys import ReachEnv

import stable_worldmodel as swm
from stable_worldmodel.errors import ContractError, MissingKeyError, NotFoundError
from stable_worldmodel.lerobot import (
    EnvConfig,
    GymEnvConfig,
    LazyVectorEnv,
    SuiteEnvConfig,
    close_envs,
    env_config_from_dict,
    env_to_policy_features,
    export_policy,
    load_exported,
    make_env,
    make_env_config,
    register_env_config,
)
from stable_worldmodel.lerobot.configs import ENV_CONFIGS
from stable_worldmodel.policy import RandomPolicy

SMALL = {"observation_height": 32, "observation_width": 32}


@pytest.mark.parametrize("env_type", ["pusht", "two_room", "cube"])
@pytest.mark.parametrize("obs_type", ["pixels_agent_pos", "environment_state_agent_pos"])
def test_preset_builds_what_lerobot_reads(env_type: str, obs_type: str) -> None:
    config = make_env_config(env_type, obs_type=obs_type, episode_length=3, **SMALL)
    envs = make_env(config, 2)
    env = envs[env_type][0]
    assert isinstance(env, SyncVectorEnv)
    observation, info = env.reset(seed=[1, 2])
    for key, feature in config.features.items():
        if key != "action":
            assert observation[key].shape == (2, *feature.shape)
            assert observation[key].dtype == (np.uint8 if key == "pixels" else np.float32)
    assert info["is_success"].dtype == bool
    assert env.call("_max_episode_steps") == (3, 3)
    assert env.call("task_description")[0] == config.task_description
    assert env.call("render")[0].shape == ((32, 32, 3) if "pixels" in observation else env.call("render")[0].shape)
    assert env.metadata["render_fps"] == config.fps
    assert env.single_action_space.shape == config.features["action"].shape
    for _ in range(3):
        *_, truncated, info = env.step(env.action_space.sample())
    assert truncated.all()
    assert "is_success" in info["final_info"]  # same-step autoreset, as LeRobot builds them
    close_envs(envs)


def test_cameras_reach_the_env_and_the_feature_names() -> None:
    if "toy/Views-v0" not in gym.registry:
        gym.register("toy/Views-v0", entry_point=functools.partial(ReachEnv, cameras=True))
    config = make_env_config(
        "toy/Views-v0", cameras={"side": "left", "top": "wrist"}, observation_height=9, observation_width=11
    )
    assert env_to_policy_features(config).keys() == {
        "action", "observation.state", "observation.images.left", "observation.images.wrist"
    }  # fmt: skip
    envs = make_env(config, 2)
    env = envs["gym"][0]
    observation, _ = env.reset(seed=0)
    assert {name: view.shape for name, view in observation["pixels"].items()} == dict.fromkeys(
        ("left", "wrist"), (2, 9, 11, 3)
    )
    close_envs(envs)
    wrong = make_env_config("toy/Views-v0", cameras={"roof": "top"}).factory()()
    with pytest.raises(MissingKeyError, match=r"\['roof'\].*side"):
        wrong.reset(seed=0)


def test_frames_are_drawn_at_the_size_asked_for() -> None:
    env = make_env_config("two_room", **SMALL).factory()()
    env.reset(seed=0)
    assert env.unwrapped.render_shape == (32, 32)
    np.testing.assert_array_equal(env.render(), env.unwrapped.render())
    env.close()


def test_pusht_takes_positions_as_lerobots_does_unless_told_otherwise() -> None:
    for kwargs, high in (({}, 512.0), ({"kwargs": {"relative": True}}, 1.0)):
        envs = make_env(make_env_config("pusht", **SMALL, **kwargs))
        assert envs["pusht"][0].single_action_space.high.tolist() == [high, high]
        close_envs(envs)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "swm/Piecewise-v0", "SimpleNavigation-v0"])
def test_any_registered_id_has_a_config(env_id: str) -> None:
    obs_type = "environment_state_agent_pos" if env_id != "CartPole-v1" else "pixels"
    config = make_env_config(env_id, obs_type=obs_type, **SMALL)
    envs = make_env(config, 2)
    env = envs["gym"][0]
    env.reset(seed=0)
    env.step(np.zeros((2, *config.features["action"].shape), np.float32))
    close_envs(envs)


def test_discrete_actions_are_rounded_numbers() -> None:
    config = make_env_config("CartPole-v1", obs_type="pixels", **SMALL)
    one = config.factory()()
    reference = gym.make("CartPole-v1")
    one.reset(seed=4)
    reference.reset(seed=4)
    for number, action in ((0.4, 0), (0.6, 1), (7.0, 1), (-3.0, 0)):
        one.step(np.array([number], np.float32))
        reference.step(action)
    np.testing.assert_array_equal(one.unwrapped.state, reference.unwrapped.state)
    one.close()


def test_unknown_type_value_or_source_is_named() -> None:
    with pytest.raises(gym.error.Error, match="Nowhere"):
        make_env_config("Nowhere-v0")
    with pytest.raises(ContractError, match="speed"):
        make_env_config("pusht", speed=3)
    with pytest.raises(ContractError, match="obs_type='video'"):
        make_env_config("pusht", obs_type="video")
    with pytest.raises(ContractError, match="agent_pos"):
        make_env_config("CartPole-v1", obs_type="pixels_agent_pos")
    with pytest.raises(ContractError, match="episode_length=0"):
        make_env_config("pusht", episode_length=0)


def test_workers_only_for_several_envs_and_only_when_asked() -> None:
    config = make_env_config("two_room", **SMALL)
    for count, use_async, kind in ((1, True, SyncVectorEnv), (2, False, SyncVectorEnv), (2, True, LazyVectorEnv)):
        envs = make_env(config, count, use_async)
        assert type(envs["two_room"][0]) is kind
        close_envs(envs)


def test_suite_builds_nothing_before_it_is_used_and_shares_spaces() -> None:
    tasks = [make_env_config("two_room", task_description=f"Go {i}.", **SMALL) for i in range(5)]
    envs = make_env(SuiteEnvConfig(name="rooms", tasks=[*tasks, make_env_config("pusht", **SMALL)]), 8)
    rooms = envs["rooms"]
    assert list(rooms) == list(range(6))
    assert not any(env.started for env in rooms.values())
    assert all(rooms[i].single_observation_space is rooms[0].single_observation_space for i in range(5))
    assert rooms[5].single_action_space != rooms[0].single_action_space
    close_envs(envs)
    with pytest.raises(ContractError, match="tasks is empty"):
        SuiteEnvConfig()


def test_config_survives_json() -> None:
    suite = SuiteEnvConfig(name="all", tasks=[make_env_config("pusht"), make_env_config("two_room", fps=5)])
    for config in (make_env_config("pusht", **SMALL), suite):
        again = env_config_from_dict(json.loads(json.dumps(config.to_dict())))
        assert again == config
        assert type(again) is type(config)
    with pytest.raises(ContractError, match="'aloha'"):
        env_config_from_dict({"type": "aloha"})


def test_new_benchmark_is_a_subclass() -> None:
    try:

        @register_env_config("walker_suite")
        class Walker(GymEnvConfig):
            def get_env_processors(self):
                return (lambda batch: {**batch, "seen": True}), (lambda actions: actions)

        config = make_env_config("walker_suite", task="swm/TwoRoom-v1", obs_type="environment_state_agent_pos")
        envs = make_env(config)
        assert list(envs) == ["walker_suite"]
        close_envs(envs)
        assert config.get_env_processors()[0]({})["seen"]
        with pytest.raises(ContractError, match="taken by Walker"):
            register_env_config("walker_suite")(EnvConfig)
    finally:
        ENV_CONFIGS.pop("walker_suite", None)


def test_default_processors_change_nothing() -> None:
    pre, post = make_env_config("two_room").get_env_processors()
    batch = {"a": 1}
    assert pre(batch) is batch
    assert post(batch) is batch


def test_world_over_a_config_has_pixels_goal_and_state() -> None:
    envs = make_env(make_env_config("two_room", **SMALL), 2)
    with swm.World(envs["two_room"][0], verbose=0) as world:
        world.set_policy(RandomPolicy(seed=0))
        world.reset(seed=0)
        world.step()
        assert world.infos["pixels"].shape == world.infos["goal"].shape == (2, 1, 32, 32, 3)
        assert {"agent_pos", "proprio", "state", "goal_state"} <= world.infos.keys()


def test_exported_checkpoint_has_lerobots_files_and_comes_back(tmp_path) -> None:
    from stable_worldmodel.wm import LeWM, LeWMConfig, save_pretrained

    model = LeWM(LeWMConfig.preset("debug"))
    config = make_env_config("two_room", **SMALL)
    checkpoint = save_pretrained(model, tmp_path / "run", protocol={"horizon": 5}, extra={"note": "x"})
    folder = export_policy(checkpoint, tmp_path / "out", config, n_action_steps=5)
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "env_config.json",
        "policy_preprocessor.json",
        "policy_postprocessor.json",
    }
    document = json.loads((folder / "config.json").read_text())
    assert document["input_features"]["observation.image"] == {"type": "VISUAL", "shape": [3, 32, 32]}
    assert document["output_features"] == {"action": {"type": "ACTION", "shape": [2]}}
    assert (document["n_obs_steps"], document["n_action_steps"]) == (1, 5)
    found = load_exported(folder)
    assert found.env == config
    assert found.checkpoint.protocol == {"horizon": 5}
    assert found.checkpoint.extra == {"note": "x"}
    for name, tensor in model.state_dict().items():
        assert torch.equal(found.checkpoint.model.state_dict()[name], tensor)
    assert env_to_policy_features(found.env).keys() == {*document["input_features"], *document["output_features"]}
    pre, post = swm.lerobot.load_processors(folder)
    action = torch.ones(1, 2)
    assert torch.equal(post(action), action)
    assert pre({"observation.state": torch.ones(2)})["observation.state"].shape == (1, 2)


def test_folders_of_another_kind_or_damaged_are_refused(tmp_path) -> None:
    with pytest.raises(NotFoundError, match=r"config\.json"):
        load_exported(tmp_path)
    for name in ("model.safetensors", "env_config.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "config.json").write_text(json.dumps({"type": "act"}))
    with pytest.raises(ContractError, match=r"'act'.*LeRobotPolicy"):
        load_exported(tmp_path)
