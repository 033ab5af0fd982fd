"""A writer of any format that is killed at any step loses nothing that it had acknowledged, and mixes nothing."""

import subprocess
import sys
from pathlib import Path

import pytest
from test_every_format import WRITABLE

SCRIPT = Path(__file__).with_name("kill_points.py")
# Every how many steps; the script itself tries all of them, which takes hours.
STRIDE = {"hf_arrow": 25, "lerobot": 50, "lance": 25, "lance_video": 25, "video": 25}
SCENARIOS = ["create", "append", "overwrite", "convert", "replace", "copy"]


def tried(folder, format, scenario, *options):
    """Run the script, and return at how many steps it killed a writer."""
    command = [sys.executable, str(SCRIPT), str(folder), format, scenario, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=590)
    assert done.returncode == 0, done.stderr[-3000:]
    return int(done.stdout)


@pytest.mark.parametrize("format", [name for name in WRITABLE if not name.startswith("lance")])
def test_killed_while_a_replacement_moves_into_place(tmp_path, format):
    stride = 3 if format in ("hf_arrow", "lerobot") else 1
    assert tried(tmp_path, format, "overwrite", "--swap", "--stride", str(stride)) >= 4


@pytest.mark.parametrize(
    ("format", "scenario"),
    [("lance", "create"), ("lance_video", "append"), ("lance", "overwrite"), ("lance", "replace")],
)
def test_killed_at_some_steps(tmp_path, format, scenario):
    assert tried(tmp_path, format, scenario, "--stride", "25") >= 3


def test_killed_where_directories_cannot_trade_places(tmp_path):
    assert tried(tmp_path, "folder", "overwrite", "--swap", "--no-exchange") >= 14


@pytest.mark.slow
def test_killed_while_the_last_file_is_replaced_and_then_full(tmp_path):
    """The file may have more episodes than the index says, which only shows when the next fold closes it at 50."""
    assert tried(tmp_path, "hf_arrow", "append", "--before", "50", "--after", "47", "--stride", "4") >= 10


@pytest.mark.slow
@pytest.mark.parametrize("format", WRITABLE)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_before_and_after_steps_from_first_to_last(tmp_path, format, scenario):
    assert tried(tmp_path, format, scenario, "--stride", str(STRIDE.get(format, 10))) >= 2
