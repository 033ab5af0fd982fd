"""The names LeRobot gives to features, files and folders."""

from __future__ import annotations

OBS_STR = "observation"
OBS_PREFIX = f"{OBS_STR}."
OBS_STATE = f"{OBS_STR}.state"
OBS_ENV_STATE = f"{OBS_STR}.environment_state"
OBS_IMAGE = f"{OBS_STR}.image"
OBS_IMAGES = f"{OBS_STR}.images"
OBS_LANGUAGE = f"{OBS_STR}.language"
OBS_LANGUAGE_TOKENS = f"{OBS_LANGUAGE}.tokens"
OBS_LANGUAGE_ATTENTION_MASK = f"{OBS_LANGUAGE}.attention_mask"
ACTION = "action"
REWARD = "next.reward"
DONE = "next.done"
TRUNCATED = "next.truncated"
SUCCESS = "next.success"
INFO = "info"

POLICY_PREPROCESSOR = "policy_preprocessor"
POLICY_POSTPROCESSOR = "policy_postprocessor"
POLICY_CONFIG_FILE = "config.json"
POLICY_WEIGHTS_FILE = "model.safetensors"
ENV_CONFIG_FILE = "env_config.json"

# Means and deviations (3, 1, 1) of ImageNet, by which image features are often normalised.
IMAGENET_STATS = {"mean": [[[0.485]], [[0.456]], [[0.406]]], "std": [[[0.229]], [[0.224]], [[0.225]]]}
