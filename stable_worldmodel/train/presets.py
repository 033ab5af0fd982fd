"""How each model is trained: `debug` (seconds on a CPU), `small` (minutes on a CPU), `paper` (a GPU).

A row holds what differs from the defaults of `TrainConfig`; its `model` what differs from the preset of the same name
of the model's config.
"""

from __future__ import annotations

from typing import Any

from stable_worldmodel.errors import ContractError
from stable_worldmodel.wm.registry import ALIASES, MODELS, preset_config

Row = dict[str, Any]

# For the models of 224 px the published size; the others are for pictures of 64 px, as `swm collect` records them.
_CPU: Row = {"precision": "fp32", "device": "cpu"}
_DEBUG: Row = {
    **_CPU,
    "epochs": 1,
    "max_steps": 20,
    "batch_size": 8,
    "learning_rate": 1e-3,
    "warmup": 0.0,
    "val_fraction": 0.2,
    "val_batches": 1,
    "log_every": 5,
    "loggers": ("jsonl", "csv"),
}
_64PX = {"image_size": 64}

# A clip of 8 frames gives 5 windows for the encoding of 8 frames instead of 20.
_JEPA_SMALL: Row = {
    **_CPU,
    "num_steps": 8,
    "epochs": 5,
    "batch_size": 64,
    "learning_rate": 1e-3,
    "warmup": 0.05,
}
_JEPA: dict[str, Row] = {
    "paper": {},
    "small": _JEPA_SMALL,
    "debug": {**_DEBUG, "model": _64PX},
}

# Values and actor are trained together. Published are 100 epochs of the values, then 100 of the actor.
_GCRL: Row = {
    "num_steps": 4,
    "frameskip": 1,
    "epochs": 100,
    "learning_rate": 3e-4,
    "weight_decay": 0.01,
    "warmup": 0.0,
}
_GCRL_SMALL: Row = {**_GCRL, **_CPU, "epochs": 10, "max_steps": 4000, "batch_size": 64, "learning_rate": 1e-3}
_GCRL_DEBUG: Row = {**_DEBUG, "num_steps": 4, "frameskip": 1}
_VALUES: dict[str, Row] = {"paper": _GCRL, "small": _GCRL_SMALL, "debug": _GCRL_DEBUG}

# Offline data: pessimistic values, and an actor that stays near the data; actions in [-1, 1].
_OFFLINE = {"discount": 0.99, "uncertainty_weight": 0.5, "bc_weight": 1.0}
_TDMPC2: Row = {
    "num_steps": 4,
    "to_end": True,  # else no clip would ever show a termination
    "epochs": 250,
    "batch_size": 256,
    "learning_rate": 3e-4,
    "weight_decay": 0.0,
    "schedule": "constant",
    "warmup": 0.0,
    "clip_norm": 20.0,
    "scaler": "none",
    "scalers": {"action": "minmax"},
}
_TDMPC2_SMALL: Row = {**_TDMPC2, **_CPU, "epochs": 10, "max_steps": 3000, "batch_size": 64}
_DREAMER: Row = {
    "num_steps": 64,
    "frameskip": 1,
    "batch_size": 16,
    "optimizer": "laprop",
    "learning_rate": 4e-5,
    "weight_decay": 0.0,
    "schedule": "constant",
    "warmup": 1000,
    "clip_norm": None,  # the optimiser clips each tensor's gradient
    "scaler": "none",
    "scalers": {"action": "minmax"},
}

PRESETS: dict[str, dict[str, Row]] = {
    "dreamer": {
        "paper": _DREAMER,
        "small": {
            **_DREAMER,
            **_CPU,
            "num_steps": 16,
            "batch_size": 8,
            "epochs": 10,
            "max_steps": 4800,  # of which a dot in a room is not seen for the first 2000
            "learning_rate": 4e-4,
            "warmup": 100,
        },
        "debug": {**_DREAMER, **_DEBUG, "num_steps": 6, "model": _64PX},
    },
    "dummy": {
        "paper": {"num_steps": 2, "epochs": 1},
        "small": {**_CPU, "num_steps": 2, "epochs": 1, "batch_size": 64, "learning_rate": 1e-3},
        "debug": {**_DEBUG, "num_steps": 2, "model": _64PX},
    },
    "frame": {
        "paper": {"batch_size": 64, "learning_rate": 5e-4},
        "small": {
            **_CPU,
            "epochs": 5,
            "max_steps": 1000,
            "batch_size": 16,
            "learning_rate": 1e-3,
            "weight_decay": 0.0,
            "warmup": 0.05,
        },
        "debug": {**_DEBUG, "learning_rate": 3e-3, "weight_decay": 0.0, "schedule": "constant", "model": _64PX},
    },
    "gcbc": {
        "paper": {**_GCRL, "learning_rate": 1e-4},
        "small": _GCRL_SMALL,
        "debug": _GCRL_DEBUG,
    },
    "gciql": {
        **_VALUES,
        "paper": {**_GCRL, "batch_size": 32},
        # V and Q follow each other's targets: the published 0.005 is too slow for 4000 steps.
        "small": {**_GCRL_SMALL, "model": {"target_rate": 0.02}},
    },
    "gcivl": _VALUES,
    "hilp": _VALUES,
    # About 1000 steps for 500 episodes of TwoRoom, 300 for 200 (what `tiny` is for).
    "lewm": {**_JEPA, "tiny": _JEPA_SMALL},
    "pldm": _JEPA,
    "prejepa": {
        "paper": {"batch_size": 32, "learning_rate": 5e-4, "weight_decay": 0.0, "warmup": 0.0},
        # What moves begins to move in the prediction after 4,500 steps; until then it is blurred.
        "small": {
            **_CPU,
            "epochs": 40,
            "max_steps": 12000,
            "batch_size": 32,
            "learning_rate": 2e-3,
            "weight_decay": 0.0,
            "warmup": 0.05,
        },
        "debug": _DEBUG,
    },
    "tdmpc2": {
        "paper": {**_TDMPC2, "model": _OFFLINE},
        "small": {**_TDMPC2_SMALL, "model": _OFFLINE},
        "goals": {**_TDMPC2_SMALL, "model": {**_OFFLINE, "bc_weight": 10.0}},
        "debug": {**_TDMPC2, **_DEBUG, "model": _OFFLINE},
    },
}


def preset_values(model_type: str, name: str) -> dict[str, Any]:
    """Arguments of `TrainConfig` for the preset `name` of a model. ContractError for an unknown model or preset."""
    model_type = ALIASES.get(model_type, model_type)
    rows = PRESETS.get(model_type)
    if rows is None:
        raise ContractError(f"unknown model {model_type!r}: expected one of {sorted(MODELS)}")
    if name not in rows:
        raise ContractError(f"preset {name!r} of {model_type}: expected one of {sorted(rows)}")
    row = dict(rows[name])
    model = preset_config(model_type, name, **row.pop("model", {}))
    return {**row, "model": model}
