"""`swm lerobot`: what this library has, for LeRobot's tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stable_worldmodel.cli import completion
from stable_worldmodel.cli.output import JsonOption, print_json
from stable_worldmodel.cli.rollouts import parse_options


def export_env(
    env: Annotated[
        str,
        typer.Argument(
            metavar="ENV", autocompletion=completion.envs, help="Environment id, or a type: pusht, two_room, cube."
        ),
    ],
    values: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Values of its config: obs_type, fps ...")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")] = Path("hub_env"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the files that are there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write the files of a hub repository from which LeRobot builds this environment."""
    from stable_worldmodel.lerobot import env_to_policy_features, make_env_config
    from stable_worldmodel.lerobot import export_env as write
    from stable_worldmodel.lerobot.publish import FILES

    config = make_env_config(env, **parse_options(values or []))
    folder = write(config, out, overwrite=overwrite)
    if as_json:
        features = {name: feature.to_dict() for name, feature in env_to_policy_features(config).items()}
        print_json({"folder": str(folder), "files": list(FILES), "features": features})
        return
    typer.echo("\n".join(str(folder / name) for name in FILES))
    typer.echo(f"\nUpload them to a model repository:\n\nhf upload OWNER/REPO {folder}")
