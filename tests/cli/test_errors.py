"""Every fault of a user is one paragraph on stderr and a status; our own faults keep their traceback."""

from __future__ import annotations

import gymnasium
import pytest
import typer
from typer.testing import CliRunner

from stable_worldmodel.cli.errors import ErrorReportingGroup
from stable_worldmodel.data import DatasetLockedError
from stable_worldmodel.errors import ContractError, MissingKeyError, NotFoundError, require


def run(fault: BaseException | None, *arguments: str):
    app = typer.Typer(cls=ErrorReportingGroup, pretty_exceptions_enable=False)

    @app.callback()
    def options(debug: bool = False) -> None: ...

    @app.command()
    def work(count: int = 1) -> None:
        if fault is not None:
            raise fault

    return CliRunner().invoke(app, [*arguments, "work"] if arguments in ((), ("--debug",)) else arguments)


def missing_package() -> ImportError:
    with pytest.raises(ImportError) as caught:
        require("no_such_package", "train")
    return caught.value


def permission_denied() -> OSError:
    return PermissionError(13, "Permission denied", "/data/x.h5")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (ContractError("num_envs=0: expected >= 1"), "num_envs=0: expected >= 1"),
        (NotFoundError("dataset 'x' was not found"), "dataset 'x' was not found"),
        (MissingKeyError("column 'x'"), "column 'x'"),
        (DatasetLockedError("x.h5 is being written"), "x.h5 is being written"),
        (permission_denied(), "/data/x.h5: Permission denied"),
        (gymnasium.error.NameNotFound("Environment `X` doesn't exist."), "Environment `X` doesn't exist."),
    ],
    ids=lambda value: type(value).__name__,
)
def test_fault_of_the_user_is_one_message(fault: Exception, message: str) -> None:
    done = run(fault)
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", f"error: {message}\n")


def test_missing_package_names_the_extra() -> None:
    done = run(missing_package())
    assert done.exit_code == 1
    assert "pip install 'stable-worldmodel[train]'" in done.stderr


def test_debug_shows_the_traceback() -> None:
    fault = ContractError("num_envs=0")
    assert run(fault, "--debug").exception is fault


def test_our_own_fault_keeps_its_traceback() -> None:
    fault = ZeroDivisionError("division by zero")
    assert run(fault).exception is fault


def test_interrupt_exits_with_130() -> None:
    done = run(KeyboardInterrupt())
    assert (done.exit_code, done.stderr) == (130, "interrupted\n")


def test_usage_error_exits_with_2() -> None:
    assert run(None, "work", "--count", "many").exit_code == 2
    assert run(None, "rest").exit_code == 2


def test_success_exits_with_0() -> None:
    assert run(None).exit_code == 0
