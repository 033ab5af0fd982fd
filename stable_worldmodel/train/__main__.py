"""`python -m stable_worldmodel.train model=lewm data=two_room.h5`: training through Hydra, with sweeps and launchers.

--multirun seed=1,2,3          one run after another
hydra/launcher=submitit_slurm  on a cluster, with the package hydra-submitit-launcher
--cfg job                      the config of the run, instead of the run
"""

from __future__ import annotations

import os
import sys
from typing import Any

from stable_worldmodel.errors import ContractError, MissingDependencyError, MissingKeyError, require
from stable_worldmodel.train.compose import CONFIG, checked, register, run_of

_USER_ERRORS = (ContractError, MissingKeyError, MissingDependencyError, OSError)


def task(composed: Any) -> dict[str, Any]:
    """Train one composed config; what Hydra calls, here or on another machine."""
    from hydra.core.hydra_config import HydraConfig

    from stable_worldmodel.train.run import execute, summary

    run = run_of(composed)
    mode = HydraConfig.get().mode
    single = mode is not None and mode.name == "RUN"
    try:
        result = execute(run, progress=single)
    except _USER_ERRORS as error:
        if not single:
            raise  # Hydra reports which of the runs failed
        raise SystemExit(f"error: {error}") from None
    found = summary(run, result)
    if os.environ.get("RANK", "0") == "0":
        print("\n".join(f"{key}: {value}" for key, value in found.items()))
    return found


def main() -> None:
    """Check the words of the command line, then hand them to Hydra."""
    try:
        hydra: Any = require("hydra", "train")
        register()
        words = [word for word in sys.argv[1:] if _is_override(word)]
        accepted = checked(words, sweeps=True)
    except _USER_ERRORS as error:
        raise SystemExit(f"error: {error}") from None
    # Hydra wants its options in one place, people write them anywhere.
    sys.argv[1:] = [*(word for word in sys.argv[1:] if not _is_override(word)), *accepted]
    hydra.main(version_base="1.3", config_path=None, config_name=CONFIG)(task)()


def _is_override(word: str) -> bool:
    return word.startswith("~") or ("=" in word and not word.startswith("-"))


if __name__ == "__main__":
    main()
