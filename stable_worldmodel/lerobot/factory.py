"""Environments out of a config or an address: always `{suite: {task id: vector env}}`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stable_worldmodel.errors import ContractError
from stable_worldmodel.lerobot.closing import close_envs
from stable_worldmodel.lerobot.configs import HubEnvConfig
from stable_worldmodel.lerobot.hub import build_hub_envs


@dataclass(frozen=True)
class HubEnvs:
    """What a hub address built, and where it comes from."""

    envs: dict[str, dict[int, Any]]
    origin: dict[str, Any]

    def only(self, chosen: str = "") -> Any:
        """The one vector env there is, or the one `chosen` as `<task id>` or `<suite>/<task id>`.

        All others are closed. ContractError, with all closed, if that does not name exactly one.
        """
        tasks = [(suite, task) for suite, by_task in self.envs.items() for task in by_task]
        named = [(suite, task) for suite, task in tasks if chosen in ("", str(task), f"{suite}/{task}")]
        if len(named) != 1:
            close_envs(self.envs)
            names = ", ".join(f"#{suite}/{task}" for suite, task in tasks[:8])
            raise ContractError(
                f"{self.origin['repo_id']} has {len(tasks)} tasks, {len(named)} of which are meant: add one of {names} "
                "to the address, or evaluate all with stable_worldmodel.lerobot.eval_policy_all"
            )
        suite, task = named[0]
        env = self.envs[suite][task]
        close_envs([other for by_task in self.envs.values() for other in by_task.values() if other is not env])
        return env


def make_env(
    cfg: Any,
    n_envs: int = 1,
    use_async_envs: bool = False,
    hub_cache_dir: str | Path | None = None,
    trust_remote_code: bool = False,
) -> dict[str, dict[int, Any]]:
    """Build envs as `{suite: {task id: vector env}}`.

    Args:
        cfg: an EnvConfig; or code on the hub, as a HubEnvConfig or an address `owner/repo[@revision][:path]`.
        n_envs: envs per task, >= 1 (ContractError).
        use_async_envs: step them in worker processes, if there are several.
        hub_cache_dir, trust_remote_code: see `download_hub_file`.
    """
    if isinstance(n_envs, bool) or not isinstance(n_envs, int) or n_envs < 1:
        raise ContractError(f"n_envs={n_envs!r}: expected an integer >= 1")
    if isinstance(cfg, str):
        return open_hub(cfg, n_envs, use_async_envs, hub_cache_dir, trust_remote_code).envs
    if isinstance(cfg, HubEnvConfig):
        return open_hub(cfg.hub_path, n_envs, use_async_envs, hub_cache_dir, trust_remote_code, cfg).envs
    if not callable(getattr(cfg, "create_envs", None)):
        raise ContractError(f"cfg is a {type(cfg).__name__}: expected an EnvConfig or a hub address")
    return cfg.create_envs(n_envs=n_envs, use_async_envs=use_async_envs)


def open_hub(
    address: str,
    n_envs: int,
    use_async_envs: bool,
    hub_cache_dir: str | Path | None = None,
    trust_remote_code: bool = False,
    cfg: Any = None,
) -> HubEnvs:
    """The envs that code on the hub builds; see `make_env`."""
    return HubEnvs(*build_hub_envs(address, n_envs, use_async_envs, hub_cache_dir, trust_remote_code, cfg))
