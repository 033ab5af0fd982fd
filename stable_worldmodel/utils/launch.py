"""Launch a training script as a separate process."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path


def pretraining(
    script_path: str | Path,
    dataset_name: str,
    output_model_name: str,
    dump_object: bool = True,
    args: str = "",
) -> int:
    """Run `script_path` with the current interpreter and Hydra-style overrides, its output unbuffered.

    `args` is split like a shell line and comes first; names with spaces survive. Returns 0.

    Raises:
        ValueError: the script does not exist.
        SystemExit: the script failed; carries its exit status.
    """
    script = Path(script_path)
    if not script.is_file():
        raise ValueError(f"training script {str(script)!r} does not exist")
    command = [
        sys.executable,
        str(script),
        *shlex.split(args),
        f"++dump_object={dump_object}",
        f"dataset_name={dataset_name}",
        f"output_model_name={output_model_name}",
    ]
    status = subprocess.run(command, env={"PYTHONUNBUFFERED": "1", **os.environ}, check=False).returncode
    if status != 0:
        raise SystemExit(status)
    return 0
