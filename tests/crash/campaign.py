"""Interrupts writers in every way at random points, again and again, and looks at what is left.

    python tests/crash/campaign.py [--formats hdf5 ...] [--kills 200] [--seed 0] [--markdown]

Writers are hurt in these ways, counted in the table:

    fresh       killed (SIGKILL) while a dataset is begun; then it is continued
    append      killed while a growing dataset is opened or continued
    ctrl_c      interrupted (SIGINT), so that the exception leaves the writer's block; the growing dataset again
    refused     an episode that does not fit, between two that do
    full        writes refused by the system from some file size on (RLIMIT_FSIZE), fresh and growing
    tmpfs       a disk of 2 MiB is filled and then enlarged; where the system lets us mount one
    looks       of a reader, while another process writes, is killed and goes on

and these are the outcomes, which must all be 0, over everything above:

    lost        acknowledged episodes that are gone
    damaged     episodes that a reader saw incomplete or wrong, or that nobody wrote
    unreadable  times that a dataset with acknowledged episodes could not be opened
    stuck       times that a dataset could not be continued, or a writer hung or failed
    leftovers   files beside the growing dataset, or in it, that an uninterrupted one does not have

`crashed` counts interpreters that a C library brought down when the system refused to write; nothing is lost by that.
In the end the growing dataset is finished and compared with one that was never interrupted: `equal` says whether all
rows of all columns, decoded pictures included, are the same bit for bit, and `verify(deep=True)` finds no fault.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from episodes import faults, make_episode

from stable_worldmodel.data import load_dataset, open_writer, verify
from stable_worldmodel.data.registry import FORMATS, Format
from stable_worldmodel.errors import NotFoundError

CHILD = Path(__file__).with_name("child.py")
LOSSLESS = {"hdf5"}
ENDLESS = 1_000_000
PATIENCE = 120  # seconds after which a writer counts as hanging
LIMITS = (300, 300_000)  # bytes per file, between which writes are refused


def writable_formats() -> list[str]:
    return [name for name, fmt in FORMATS.items() if fmt.open_writer.__func__ is not Format.open_writer.__func__]


@dataclass
class Table:
    """What was done to the writers of one format, and what came of it. See the top of this file."""

    format: str
    fresh: int = 0
    append: int = 0
    ctrl_c: int = 0
    refused: int = 0
    full: int = 0
    tmpfs: int | str = 0  # or why it was not tried
    looks: int = 0
    crashed: int = 0
    lost: int = 0
    damaged: int = 0
    unreadable: int = 0
    stuck: int = 0
    leftovers: int = 0
    equal: bool = False
    episodes: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return self.equal and not any((self.lost, self.damaged, self.unreadable, self.stuck, self.leftovers))


class Campaign:
    """The campaign against one format, in an empty `folder`."""

    def __init__(self, name: str, folder: Path, seed: int) -> None:
        self.name, self.folder, self.rng = name, folder, random.Random(seed)
        self.table = Table(name)
        self.pace = 0.0  # seconds that a small dataset takes
        self.growing, self.stored = folder / "growing", 0  # a dataset that all the harm is done to in turn

    def complain(self, fault: object) -> None:
        print(f"{self.name}: {fault}", file=sys.stderr)

    # -- writers ------------------------------------------------------------------------------------------------------

    def start(self, path: Path, total: int = ENDLESS, limit: int | None = None) -> subprocess.Popen:
        """A writer that is past its imports and about to open the dataset."""
        command = [sys.executable, str(CHILD), str(path), self.name, str(total), *([str(limit)] if limit else [])]
        # Without a buffer: `communicate` would not see what `readline` has put there.
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
        child.stdout.readline()  # type: ignore[union-attr]
        return child

    def end(self, child: subprocess.Popen, expected: tuple[int, ...]) -> int:
        """Wait for a writer and return how many episodes it acknowledged. `expected`: how it should have ended."""
        try:
            out, error = child.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            out, error = child.communicate()
            error = b"hangs\n" + error
        if child.returncode == -signal.SIGSEGV and 1 in expected:
            self.table.crashed += 1
        elif child.returncode not in expected or error.startswith(b"hangs"):
            self.complain(f"ended with {child.returncode}\n{error.decode()}")
            self.table.stuck += 1
        return int(out.split()[-1]) if out.split() else 0

    def hurt(self, path: Path, how: signal.Signals) -> int:
        """Send a signal to a writer after a random time, mostly short; return what it acknowledged."""
        child = self.start(path)
        time.sleep(np.exp(self.rng.uniform(np.log(3e-4), np.log(2 * self.pace))))
        child.send_signal(how)
        if how == signal.SIGINT:  # Python loses the exception where it comes inside a finaliser
            try:
                child.wait(PATIENCE / 10)
            except subprocess.TimeoutExpired:
                child.send_signal(how)
        return self.end(child, (-how,))

    # -- what is left -------------------------------------------------------------------------------------------------

    def inspect(self, path: Path, acknowledged: int, most: int | None = None) -> int:
        """Count what is wrong with a dataset and return its number of episodes: at most `most`, or one not yet said."""
        try:
            dataset = load_dataset(path)
            stored = dataset.num_episodes
            looked_at = {*range(max(0, stored - 3), stored), self.rng.randrange(stored)}
            wrong = [
                fault
                for k in sorted(looked_at)
                for fault in faults(dataset.read_rows(k, 0, int(dataset.lengths[k])), k, self.name in LOSSLESS)
            ]
        except NotFoundError as error:
            if acknowledged:
                self.complain(repr(error))
                self.table.unreadable += 1
            return acknowledged
        except Exception as error:
            self.complain(f"{acknowledged} episodes: {error!r}")
            self.table.unreadable += 1
            return acknowledged
        if stored > (acknowledged + 1 if most is None else most):
            wrong.append(f"{stored} episodes, {acknowledged} were acknowledged")
        for fault in wrong:
            self.complain(fault)
        self.table.damaged += len(wrong)
        self.table.lost += max(0, acknowledged - stored)
        return stored

    def go_on(self, path: Path, acknowledged: int) -> None:
        """Continue a dataset by two episodes, and remove it."""
        stored = self.inspect(path, acknowledged)
        try:
            with open_writer(path, format=self.name, mode="append") as writer:
                for k in range(writer.num_episodes, stored + 2):
                    writer.write_episode(make_episode(k))
        except Exception as error:
            self.complain(f"after {stored} episodes: {error!r}")
            self.table.stuck += 1
        else:
            self.inspect(path, stored + 2, stored + 2)
        for left in [*path.parent.glob(f"{path.name}*"), *path.parent.glob(f".{path.name}*")]:
            shutil.rmtree(left) if left.is_dir() else left.unlink()

    def measure(self) -> None:
        """Let a writer make a dataset of some episodes, for the time that it takes."""
        child, began = self.start(self.folder / "measured", 12), time.monotonic()
        self.end(child, (0,))
        self.pace = time.monotonic() - began
        self.go_on(self.folder / "measured", 12)

    # -- harm ---------------------------------------------------------------------------------------------------------

    def kills(self, count: int) -> None:
        for k in range(count):
            fresh = self.folder / f"fresh_{k}"
            self.go_on(fresh, self.hurt(fresh, signal.SIGKILL))
            self.stored = self.inspect(self.growing, max(self.stored, self.hurt(self.growing, signal.SIGKILL)))
        self.table.fresh += count
        self.table.append += count

    def interrupts(self, count: int) -> None:
        for _ in range(count):
            self.stored = self.inspect(self.growing, max(self.stored, self.hurt(self.growing, signal.SIGINT)))
        self.table.ctrl_c += count

    def refused_episodes(self, count: int) -> None:
        """An episode that cannot be written leaves those before it, and the next one can be."""
        for k in range(count):
            path = self.folder / f"refused_{k}"
            with open_writer(path, format=self.name) as writer:
                for i in range(k + 1):
                    writer.write_episode(make_episode(i))
                good = make_episode(k + 1)
                bad = {"action": good["action"][:2], "seed": good["reward"], "pixels": good["pixels"][:, :8]}
                name = sorted(bad)[k % 3]
                try:
                    writer.write_episode({**good, name: bad[name]})
                except ValueError:
                    writer.write_episode(good)
            self.go_on(path, k + 2)
        self.table.refused += count

    def full(self, count: int) -> None:
        for k in range(count):
            fresh = self.folder / f"full_{k}"
            low, high = np.log(LIMITS)
            limit = int(np.exp(self.rng.uniform(low, high)))
            self.go_on(fresh, self.end(self.start(fresh, 40, limit), (0, 1)))
            # The growing one has files of some size already: a little beyond that is the interesting place.
            sizes = [file.stat().st_size for file in self.folder.glob("growing*/**/*") if file.is_file()]
            sizes += [file.stat().st_size for file in self.folder.glob("growing*") if file.is_file()]
            limit = int(self.rng.choice(sizes or [1000]) * self.rng.uniform(0.5, 2)) + 300
            acknowledged = self.end(self.start(self.growing, self.stored + 40, limit), (0, 1))
            self.stored = self.inspect(self.growing, max(self.stored, acknowledged))
        self.table.full += 2 * count

    def tmpfs(self, count: int) -> None:
        try:
            for k in range(count):
                with small_disk(self.folder, 2) as mount:
                    acknowledged = self.end(self.start(mount / "data"), (1,))
                    self.inspect(mount / "data", acknowledged)
                    subprocess.run(["mount", "-o", "remount,size=64m", str(mount)], check=True)
                    self.go_on(mount / "data", acknowledged)
                self.table.tmpfs = k + 1
        except (subprocess.CalledProcessError, OSError) as error:
            self.table.tmpfs = f"not tried: {error}"

    def concurrent_reader(self, looks: int) -> None:
        """A reader that looks again and again sees growing prefixes, while the writer is killed every ten looks."""
        path, seen = self.folder / "live", 0
        child = self.start(path)
        for _ in range(2):
            child.stdout.readline()  # type: ignore[union-attr]  # the first episode is there
        for k in range(looks):
            seen = self.inspect(path, max(seen, 1), ENDLESS)
            if k % 10 == 9:
                child.kill()
                seen = max(seen, self.end(child, (-signal.SIGKILL,)))
                child = self.start(path)
            time.sleep(self.rng.uniform(0, 0.02))
        child.kill()
        self.go_on(path, max(seen, self.end(child, (-signal.SIGKILL,))))
        self.table.looks += looks

    def finish(self) -> None:
        """Finish the growing dataset and compare it with one that nothing happened to."""
        total, whole = self.stored + 3, self.folder / "whole"
        for path in (self.growing, whole):
            self.end(self.start(path, total), (0,))
        self.table.leftovers = len(entries(self.folder, "growing") ^ entries(self.folder, "whole"))
        report = verify(self.growing, deep=True)
        for fault in report.faults:
            self.complain(fault)
        self.table.equal = report.ok and report.checked == total and equal(self.growing, whole)
        self.table.episodes = total


def entries(folder: Path, name: str) -> set[str]:
    """The names of all files of a dataset and beside it, in words that do not depend on its name.

    Versions of Lance tables have names of their own, and are counted by the tables' verification.
    """
    found = [entry.relative_to(folder) for pattern in (f"{name}*", f".{name}*") for entry in folder.glob(pattern)]
    inside = [
        file.relative_to(folder)
        for entry in found
        if (folder / entry).is_dir()
        for file in (folder / entry).rglob("*")
        if ".lance" not in str(file)
    ]
    return {str(entry).replace(name, "*", 1) for entry in [*found, *inside]}


def equal(one: Path, other: Path) -> bool:
    """Whether two datasets hold the same rows, bit for bit."""
    left, right = load_dataset(one, cache="none"), load_dataset(other, cache="none")
    if left.lengths.tolist() != right.lengths.tolist():
        print(f"{one}: {left.num_episodes} episodes, {other}: {right.num_episodes}", file=sys.stderr)
        return False
    different = [
        f"episode {k}, {key}"
        for k, rows in enumerate(left.lengths.tolist())
        for key, a, b in _columns(left.read_rows(k, 0, rows), right.read_rows(k, 0, rows))
        if a.dtype != b.dtype or a.shape != b.shape or not np.array_equal(_bits(a), _bits(b))
    ]
    print(*different, sep="\n", end="\n" * bool(different), file=sys.stderr)
    return not different


def _columns(left: dict, right: dict) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    nothing = np.empty(0)
    for key in sorted({*left, *right}):
        yield key, left.get(key, nothing), right.get(key, nothing)


def _bits(values: np.ndarray) -> np.ndarray:
    return values if values.dtype.hasobject else np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A new disk of this size. Needs the right to mount."""
    mount = folder / "disk"
    mount.mkdir(exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(mount)], check=True, capture_output=True
    )
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


def campaign(name: str, count: int, seed: int) -> Table:
    """Kill `count` writers of each kind, and do a fraction as much of the slower harm."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        run = Campaign(name, Path(temporary), seed)
        some = max(2, count // 5)
        run.measure()
        run.kills(count)
        run.interrupts(some)
        run.refused_episodes(3)
        run.full(some)
        run.tmpfs(2)
        run.concurrent_reader(max(20, count))
        run.finish()
    run.table.seconds = round(time.monotonic() - began, 1)
    return run.table


def markdown(tables: list[Table]) -> str:
    rows = [[str(value) for value in asdict(table).values()] for table in tables]
    names = list(asdict(Table("")))
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--formats", nargs="+", default=writable_formats())
    parser.add_argument("--kills", type=int, default=200, help="of a fresh and of a growing dataset each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--markdown", action="store_true", help="print a table when all is done, not JSON lines")
    arguments = parser.parse_args()
    tables = []
    for name in arguments.formats:
        tables.append(campaign(name, arguments.kills, arguments.seed))
        if not arguments.markdown:
            print(json.dumps(asdict(tables[-1])), flush=True)
    if arguments.markdown:
        print(markdown(tables))
    return 0 if all(table.ok for table in tables) else 1


if __name__ == "__main__":
    sys.exit(main())
