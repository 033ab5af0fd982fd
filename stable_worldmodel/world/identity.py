"""What a run was: a hash that tells two runs apart, and a description that a person can read.

Both look at the public attributes of policies and wrappers, and into the objects found there, so that solver settings,
scalers and weights count. Of private attributes only torch modules do, since others may change while a policy runs.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import sys
import types
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import gymnasium as gym
import numpy as np

_DEPTH = 20  # of nested settings that are told apart
_SHOWN_DEPTH = 4  # of those that are described
_SHOWN_ITEMS = 16  # of an array
_ATTACHED = ("env", "num_envs")  # which pool a policy drives, which decides about nothing


def fingerprint(value: Any) -> str:
    """A hash of nested settings, equal in every process: 32 hexadecimal digits."""
    return hashlib.blake2b(json.dumps(_canonical(value, ())).encode(), digest_size=16).hexdigest()


def policy_content(policy: Any) -> Any:
    """What `fingerprint` is to see of a policy: `policy.fingerprint()` if it has one, else type and attributes."""
    own = getattr(policy, "fingerprint", None)
    if callable(own):
        return [_name(type(policy)), str(own())]
    return [getattr(policy, "type", "custom"), policy]


def describe_policy(policy: Any) -> dict[str, Any]:
    """Type, class and settings of a policy, JSON-able."""
    return {"type": getattr(policy, "type", "custom"), **describe(policy)}


def describe(value: Any, depth: int = 0) -> Any:
    """Settings as JSON-able values: scalars as they are, objects by class and public attributes, weights by hash."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.nn.Module):
        count = sum(parameter.numel() for parameter in value.parameters())
        return {"class": type(value).__name__, "parameters": count, "fingerprint": fingerprint(value)}
    if isinstance(value, (types.FunctionType, types.MethodType, types.BuiltinFunctionType, type)):
        return {"name": _name(value), "fingerprint": fingerprint(value)}
    if isinstance(value, functools.partial):
        parts = {"args": list(value.args), **value.keywords}
        return {"name": _name(value.func), **_described(parts, depth)}
    if torch is not None and isinstance(value, torch.Tensor):
        value = value.detach().cpu().float().numpy()
    if isinstance(value, np.ndarray):
        small = value.size <= _SHOWN_ITEMS and not value.dtype.hasobject
        return value.tolist() if small else {"shape": list(value.shape), "fingerprint": fingerprint(value)}
    if depth >= _SHOWN_DEPTH:
        return type(value).__name__
    if isinstance(value, Mapping):
        return _described(value, depth)
    if isinstance(value, (list, tuple, set, frozenset)):
        return [describe(item, depth + 1) for item in value]
    if isinstance(value, (gym.Space, gym.Env)) or not hasattr(value, "__dict__"):
        return _without_addresses(value)
    return {"class": type(value).__name__, **_described(vars(value), depth)}


def _described(items: Mapping, depth: int) -> dict[str, Any]:
    public = {str(key): item for key, item in items.items() if not str(key).startswith("_") and key not in _ATTACHED}
    return {key: describe(item, depth + 1) for key, item in public.items()}


def _canonical(value: Any, parents: tuple[int, ...]) -> Any:
    """`value` as something JSON can hold. Equal content gives an equal result; arrays become digests."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return [str(value.dtype), repr(value.item())]
    if id(value) in parents or len(parents) > _DEPTH:
        return _name(type(value))
    parents = (*parents, id(value))
    torch = sys.modules.get("torch")
    if isinstance(value, Mapping):
        items = [[_canonical(key, parents), _canonical(item, parents)] for key, item in value.items()]
        return ["mapping", sorted(items, key=json.dumps)]
    if isinstance(value, (list, tuple)):
        return ["sequence", [_canonical(item, parents) for item in value]]
    if isinstance(value, (set, frozenset)):
        return ["set", sorted((_canonical(item, parents) for item in value), key=json.dumps)]
    if isinstance(value, np.ndarray):
        content = [_canonical(item, parents) for item in value.ravel()] if value.dtype.hasobject else value.tobytes()
        return ["array", str(value.dtype), value.shape, _digest(content)]
    if torch is not None and isinstance(value, torch.Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1)  # bytes, since NumPy has no bfloat16
        return ["tensor", str(value.dtype), list(value.shape), _digest(flat.view(torch.uint8).numpy())]
    if torch is not None and isinstance(value, torch.nn.Module):
        return ["module", _name(type(value)), _without_addresses(value), _canonical(value.state_dict(), parents)]
    return _canonical_object(value, parents, torch)


def _canonical_object(value: Any, parents: tuple[int, ...], torch: Any) -> Any:
    if isinstance(value, functools.partial):
        return ["partial", [_canonical(part, parents) for part in (value.func, value.args, value.keywords)]]
    if isinstance(value, types.MethodType):
        return ["method", value.__name__, _canonical(value.__self__, parents)]
    if isinstance(value, types.FunctionType):
        code = value.__code__
        captured = [cell.cell_contents for cell in value.__closure__ or ()]
        parts = [code.co_code.hex(), _without_addresses(code.co_consts), code.co_names, captured, value.__defaults__]
        return ["function", _name(value), _canonical(parts, parents)]
    if isinstance(value, (type, types.ModuleType, types.BuiltinFunctionType)):
        return _name(value)
    if isinstance(value, (gym.Space, gym.Env)) or hasattr(value, "single_action_space"):
        return _name(type(value))  # described by whoever built them; batched ones differ by the number of envs
    if isinstance(value, PurePath) or not hasattr(value, "__dict__"):
        return [_name(type(value)), _without_addresses(value)]
    counted = {
        name: member
        for name, member in vars(value).items()
        if (not name.startswith("_") or (torch is not None and isinstance(member, torch.nn.Module)))
        and name not in _ATTACHED
    }
    return ["object", _name(type(value)), _canonical(counted, parents)]


def _digest(content: Any) -> str:
    data = json.dumps(content).encode() if isinstance(content, list) else content
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value.__name__)}"


def _without_addresses(value: Any) -> str:
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))
