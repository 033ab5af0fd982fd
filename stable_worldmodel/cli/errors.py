"""Faults a user can cause become one paragraph on stderr and an exit status; faults of ours keep their traceback."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from stable_worldmodel.errors import ContractError, MissingDependencyError, MissingKeyError, PolicyNotSetError

FAILED = 1
_OF_AN_ENV = "was raised from the environment creator for"
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def user_errors() -> tuple[type[Exception], ...]:
    """The exception types whose message is all a user needs."""
    # Only asked once something was raised, so that `swm --help` does not pay for the imports.
    from gymnasium.error import Error as GymnasiumError

    from stable_worldmodel.data import DatasetLockedError

    ours = (ContractError, MissingKeyError, PolicyNotSetError, MissingDependencyError, DatasetLockedError)
    return (*ours, GymnasiumError, OSError)


def is_users(error: Exception) -> bool:
    """Whether a user caused `error`: it is one of `user_errors`, or what an env made of its arguments."""
    # gymnasium.make adds these words to what a constructor raised, and keeps its type.
    return isinstance(error, user_errors()) or _OF_AN_ENV in str(error)


def describe(error: Exception) -> str:
    """The message of `error`; for errors of the operating system the reason and the file, without the number."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error).partition(_OF_AN_ENV)[0].rstrip()


class ErrorReportingGroup(TyperGroup):
    """Runs a command and reports its errors. `--debug` lets them through."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # `swm envs | head`: typer ends quietly
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            of_typer = isinstance(error, typer.Abort) or hasattr(error, "exit_code")  # usage errors, exits
            if of_typer or ctx.params.get("debug") or not is_users(error):
                raise
            typer.echo(f"error: {describe(error)}", err=True)
            raise typer.Exit(FAILED) from None
