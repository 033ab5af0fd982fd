from __future__ import annotations

import io

import pytest

from stable_worldmodel.utils.progress import SilentProgress, TerminalProgress, open_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def test_without_a_terminal_a_task_is_lines_of_plain_text() -> None:
    stream = io.StringIO()
    with TerminalProgress(stream, interval=0) as progress:
        progress.stage("Collect [with brackets]")
        task = progress.task("episodes", total=2)
        task.advance(steps=50)
        task.advance(steps=50, reward=0.25)
    stage, first, last = lines(stream)
    assert stage == "Collect [with brackets]"
    assert first.startswith("  episodes: 1/2 · ")
    assert " steps/s · 0:00:00 left" in first
    assert last.startswith("  episodes: 2/2 · ")
    assert last.endswith("0:00:00 taken · reward 0.25")


def test_between_two_intervals_nothing_is_written_but_the_end() -> None:
    stream = io.StringIO()
    task = TerminalProgress(stream, interval=3600).task("episodes", total=100)
    for _ in range(100):
        task.advance()
    assert lines(stream) == ["  episodes: 100/100 · 0:00:00 taken"]


def test_remaining_time_of_a_resumed_task_counts_only_this_run() -> None:
    progress = TerminalProgress(io.StringIO())
    task = progress.task("episodes", total=100, done=80)
    task.started -= 30  # half a minute ago
    task.advance(10, steps=300)
    assert task.describe(now=task.started + 30) == "90/100 · 10 steps/s · 0:00:30 left"


def test_on_a_terminal_the_bar_ends_with_the_stage_and_the_cursor_comes_back() -> None:
    stream = Terminal()
    with TerminalProgress(stream) as progress:
        progress.stage("Train")
        progress.task("epochs", total=3).advance(loss=0.5)
    assert "1/3" in stream.getvalue()
    assert "loss 0.5" in stream.getvalue()
    assert stream.getvalue().rindex("\x1b[?25h") > stream.getvalue().rindex("\x1b[?25l")  # cursor shown after hidden


def test_a_task_of_an_ended_stage_does_not_move_the_next_bar() -> None:
    with TerminalProgress(Terminal()) as progress:
        old = progress.task("episodes", total=10)
        progress.stage("Train")
        progress.task("epochs", total=10)
        old.advance(7)
        assert progress._bars is not None
        assert [task.completed for task in progress._bars.tasks] == [0]


def test_open_progress_maps_booleans_and_leaves_objects_alone(capsys: pytest.CaptureFixture[str]) -> None:
    mine = SilentProgress()
    with open_progress(mine) as same:
        assert same is mine
    with open_progress(False) as silent:
        silent.task("episodes", total=1).advance()
    assert capsys.readouterr().err == ""
    with open_progress(True) as shown:
        shown.task("episodes", total=1).advance()
    assert capsys.readouterr().err == "  episodes: 1/1 · 0:00:00 taken\n"
