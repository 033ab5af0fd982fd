"""LeRobot's environments, evaluation and policies here, and ours there, without the package `lerobot`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stable_worldmodel.lerobot.constants import (
    ACTION,
    OBS_ENV_STATE,
    OBS_IMAGE,
    OBS_IMAGES,
    OBS_STATE,
    OBS_STR,
)
from stable_worldmodel.lerobot.features import (
    FeatureType,
    NormalizationMode,
    PolicyFeature,
    env_to_policy_features,
    get_channel_first_image_shape,
)
from stable_worldmodel.utils.lazy import lazy_exports

_PACKAGE = "stable_worldmodel.lerobot"
_LAZY = {
    name: f"{_PACKAGE}.{module}"
    for module, names in {
        "attributes": ("check_env_attributes_and_types", "render_frame", "sub_env_has_attr", "task_texts"),
        "closing": ("close_envs", "close_single_env"),
        "configs": (
            "CubeEnvConfig",
            "EnvConfig",
            "GymEnvConfig",
            "HubEnvConfig",
            "PushTEnvConfig",
            "SuiteEnvConfig",
            "TwoRoomEnvConfig",
            "env_config_from_dict",
            "make_env_config",
            "register_env_config",
        ),
        "env": ("LeRobotEnv",),
        "evaluation": ("EvalConfig", "TaskResult", "auto_batch_size", "eval_policy_all", "evaluate"),
        "export": ("export_policy", "load_exported"),
        "factory": ("make_env",),
        "hub": (
            "call_make_env",
            "download_hub_file",
            "import_hub_module",
            "load_module_from_path",
            "normalize_hub_result",
            "parse_hub_url",
        ),
        "infos": ("observation_from_infos",),
        "lazy_env": ("LazyVectorEnv",),
        "observation": ("convert_nested_dict", "preprocess_observation"),
        "policy": ("LeRobotPolicy",),
        "processors": ("load_pipeline", "load_processors", "normalize"),
        "publish": ("export_env",),
    }.items()
    for name in names
}
__all__ = [
    "ACTION",
    "OBS_ENV_STATE",
    "OBS_IMAGE",
    "OBS_IMAGES",
    "OBS_STATE",
    "OBS_STR",
    "FeatureType",
    "NormalizationMode",
    "PolicyFeature",
    "env_to_policy_features",
    "get_channel_first_image_shape",
    *_LAZY,
]

if TYPE_CHECKING:
    from stable_worldmodel.lerobot.attributes import check_env_attributes_and_types as check_env_attributes_and_types
    from stable_worldmodel.lerobot.attributes import render_frame as render_frame
    from stable_worldmodel.lerobot.attributes import sub_env_has_attr as sub_env_has_attr
    from stable_worldmodel.lerobot.attributes import task_texts as task_texts
    from stable_worldmodel.lerobot.closing import close_envs as close_envs
    from stable_worldmodel.lerobot.closing import close_single_env as close_single_env
    from stable_worldmodel.lerobot.configs import CubeEnvConfig as CubeEnvConfig
    from stable_worldmodel.lerobot.configs import EnvConfig as EnvConfig
    from stable_worldmodel.lerobot.configs import GymEnvConfig as GymEnvConfig
    from stable_worldmodel.lerobot.configs import HubEnvConfig as HubEnvConfig
    from stable_worldmodel.lerobot.configs import PushTEnvConfig as PushTEnvConfig
    from stable_worldmodel.lerobot.configs import SuiteEnvConfig as SuiteEnvConfig
    from stable_worldmodel.lerobot.configs import TwoRoomEnvConfig as TwoRoomEnvConfig
    from stable_worldmodel.lerobot.configs import env_config_from_dict as env_config_from_dict
    from stable_worldmodel.lerobot.configs import make_env_config as make_env_config
    from stable_worldmodel.lerobot.configs import register_env_config as register_env_config
    from stable_worldmodel.lerobot.env import LeRobotEnv as LeRobotEnv
    from stable_worldmodel.lerobot.evaluation import EvalConfig as EvalConfig
    from stable_worldmodel.lerobot.evaluation import TaskResult as TaskResult
    from stable_worldmodel.lerobot.evaluation import auto_batch_size as auto_batch_size
    from stable_worldmodel.lerobot.evaluation import eval_policy_all as eval_policy_all
    from stable_worldmodel.lerobot.evaluation import evaluate as evaluate
    from stable_worldmodel.lerobot.export import export_policy as export_policy
    from stable_worldmodel.lerobot.export import load_exported as load_exported
    from stable_worldmodel.lerobot.factory import make_env as make_env
    from stable_worldmodel.lerobot.hub import call_make_env as call_make_env
    from stable_worldmodel.lerobot.hub import download_hub_file as download_hub_file
    from stable_worldmodel.lerobot.hub import import_hub_module as import_hub_module
    from stable_worldmodel.lerobot.hub import load_module_from_path as load_module_from_path
    from stable_worldmodel.lerobot.hub import normalize_hub_result as normalize_hub_result
    from stable_worldmodel.lerobot.hub import parse_hub_url as parse_hub_url
    from stable_worldmodel.lerobot.infos import observation_from_infos as observation_from_infos
    from stable_worldmodel.lerobot.lazy_env import LazyVectorEnv as LazyVectorEnv
    from stable_worldmodel.lerobot.observation import convert_nested_dict as convert_nested_dict
    from stable_worldmodel.lerobot.observation import preprocess_observation as preprocess_observation
    from stable_worldmodel.lerobot.policy import LeRobotPolicy as LeRobotPolicy
    from stable_worldmodel.lerobot.processors import load_pipeline as load_pipeline
    from stable_worldmodel.lerobot.processors import load_processors as load_processors
    from stable_worldmodel.lerobot.processors import normalize as normalize
    from stable_worldmodel.lerobot.publish import export_env as export_env

__getattr__ = lazy_exports(__name__, _LAZY)
