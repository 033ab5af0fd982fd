"""Damages small datasets at random, and looks at what readers, `verify` and its repair make of them.

    python tests/crash/damage.py [--formats hdf5 ...] [--count 500] [--seed 0] [--only 17] [--markdown]

Each time one file of a dataset (rows, images, index, log, journal) is truncated or deleted, or gets a bit flipped or a
block zeroed. Half of the datasets were closed, half left by a writer that was killed. Then all is read, and checked
with `verify(deep=True)`. These are the outcomes, the last of them faults:

    right       every value is what it was
    error       the reader raises an error that names the dataset
    seen        values are wrong and the reader did not notice, but `verify` does
    odd         the reader raises an error of another kind, or one that names nothing
    unseen      something is wrong, or the reader refuses, and `verify` finds no fault
    verify_odd  `verify` itself raises an error that names nothing
    repair_bad  after `verify(repair=True)` the dataset is not a prefix of what was recorded
    hangs       it takes more than 20 seconds
    crashes     the interpreter ends

`--only 17` does the seventeenth damage alone and tells all about it.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from campaign import writable_formats
from episodes import make_episode

from stable_worldmodel.data import load_dataset, open_writer, verify
from stable_worldmodel.data.formats.shared.disk import copy_tree
from stable_worldmodel.errors import ContractError, NotFoundError

EPISODES = 7
NAME = "wounded"  # of the dataset, which errors should mention
PATIENCE = 20  # seconds
BLOCK = 4096
STATES = ("closed", "killed")


@dataclass
class Table:
    """How often each outcome came. See the top of this file."""

    format: str
    damages: int = 0
    right: int = 0
    error: int = 0
    seen: int = 0
    odd: int = 0
    unseen: int = 0
    verify_odd: int = 0
    repair_bad: int = 0
    hangs: int = 0
    crashes: int = 0

    @property
    def faults(self) -> int:
        return self.odd + self.unseen + self.verify_odd + self.repair_bad + self.hangs + self.crashes


# -- the patients ----------------------------------------------------------------------------------------------------


def prepare(name: str, folder: Path) -> None:
    """Make a dataset in `folder/closed`, and another as a killed writer leaves it in `folder/killed`."""
    with open_writer(folder / STATES[0] / NAME, format=name, metadata={"made": "by hand"}) as writer:
        for k in range(EPISODES):
            writer.write_episode(make_episode(k))
        copy_tree(folder / STATES[0], folder / STATES[1])
    for lock in folder.rglob("*.lock"):
        lock.unlink()


def read_all(folder: Path) -> list[dict[str, np.ndarray]]:
    dataset = load_dataset(folder / NAME, cache="none")
    return [dataset.read_rows(k, 0, int(rows)) for k, rows in enumerate(dataset.lengths)]


def same(found: list[dict[str, np.ndarray]], clean: list[dict[str, np.ndarray]]) -> bool:
    """Whether `found` is what `clean` begins with, bit for bit."""
    return len(found) <= len(clean) and all(
        episode.keys() == expected.keys() and all(_equal(episode[name], expected[name]) for name in expected)
        for episode, expected in zip(found, clean, strict=False)
    )


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return a.tolist() == b.tolist() if a.dtype.hasobject else a.tobytes() == b.tobytes()


# -- the damage ------------------------------------------------------------------------------------------------------


def damage(folder: Path, rng: random.Random) -> str:
    """Do something to one file below `folder`, and say what. Every kind of file has the same chance."""
    kinds: dict[tuple[str, str], list[Path]] = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        kinds.setdefault((file.relative_to(folder).parts[0], file.suffix), []).append(file)
    file = rng.choice(kinds[rng.choice(sorted(kinds))])
    size = file.stat().st_size
    # The beginning of a file matters more than most of it.
    at = rng.randrange(min(size, BLOCK) if rng.random() < 0.3 else size) if size else 0
    how = rng.choice(["truncated", "deleted", "flipped", "flipped", "zeroed"])
    if how == "deleted":
        file.unlink()
    else:
        with file.open("r+b") as handle:
            handle.seek(at)
            if how == "truncated":
                handle.truncate(at)
            elif how == "flipped" and size:
                byte = handle.read(1)[0]
                handle.seek(at)
                handle.write(bytes([byte ^ 1 << rng.randrange(8)]))
            elif how == "zeroed":
                handle.write(bytes(min(size - at, rng.choice([16, 512, BLOCK]))))
    return f"{how} {file.relative_to(folder)} at {at} of {size}"


class Patient:
    """Datasets of one format, of which copies are damaged one after another."""

    def __init__(self, name: str, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.clean: dict[str, list[dict[str, np.ndarray]]] = {}
        self.known: dict[str, list[str]] = {}  # what `verify` finds without damage
        prepare(name, folder)
        for state in STATES:
            with self.copy_of(state) as copy:
                self.clean[state] = read_all(copy)
                self.known[state] = verify(copy / NAME, deep=True).faults
            if len(self.clean[state]) != EPISODES:
                raise RuntimeError(f"{name}, {state}: {len(self.clean[state])} episodes without any damage")

    def copy_of(self, state: str) -> Copy:
        return Copy(self.folder / state, self.folder / "copy")

    def examine(self, number: int) -> dict[str, Any]:
        """Do damage `number`, and say what came of it."""
        rng = random.Random(f"{self.seed}:{number}")
        state = rng.choice(STATES)
        with self.copy_of(state) as copy:
            done = f"{state}, {damage(copy, rng)}"
            outcome, told = self.read(copy, self.clean[state])
            found, report = self.verify(copy, self.known[state])
            faults = []
            if outcome in ("wrong", "error", "odd") and found == "nothing":
                faults.append("unseen")
            if found == "odd":
                faults.append("verify_odd")
            if found == "faults":
                mended = self.repair(copy, self.clean[state])
                if mended:
                    faults.append("repair_bad")
                    report += f"\nrepair: {mended}"
        return {"done": done, "outcome": "seen" if outcome == "wrong" else outcome, "told": told, "report": report,
                "faults": faults}  # fmt: skip

    def read(self, copy: Path, clean: list[dict[str, np.ndarray]]) -> tuple[str, str]:
        try:
            found = read_all(copy)
        except Exception as error:
            return ("error" if is_plain(error) else "odd"), repr(error)
        right = len(found) == len(clean) and same(found, clean)
        return ("right", "") if right else ("wrong", f"{len(found)} episodes")

    def verify(self, copy: Path, known: list[str]) -> tuple[str, str]:
        try:
            report = verify(copy / NAME, deep=True)
        except Exception as error:
            return ("error" if is_plain(error) else "odd"), repr(error)
        new = [fault for fault in report.faults if fault not in known]
        return ("faults" if new else "nothing"), f"{new}, {report.checked} checked"

    def repair(self, copy: Path, clean: list[dict[str, np.ndarray]]) -> str:
        """Repair, and return what is wrong then; nothing if there was no good episode."""
        try:
            report = verify(copy / NAME, deep=True, repair=True)
            if report.repaired_to is None:
                return "" if "nothing was cut" in report.faults[-1] else f"not repaired: {report.faults}"
            if report.repaired_to == 0:
                return ""
            found = read_all(copy)
        except Exception as error:
            return repr(error)
        if len(found) != report.repaired_to or not same(found, clean):
            return f"{len(found)} episodes, repaired to {report.repaired_to}"
        left = verify(copy / NAME, deep=True).faults
        return f"still {left}" if left else ""


@dataclass
class Copy:
    """A copy of a directory, for the length of a block."""

    source: Path
    target: Path

    def __enter__(self) -> Path:
        copy_tree(self.source, self.target)
        return self.target

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self.target)


def is_plain(error: Exception) -> bool:
    """Whether it is an error for users, and says what it is about."""
    return isinstance(error, (ContractError, NotFoundError)) and NAME in str(error)


# -- one process does the work, another one survives it --------------------------------------------------------------


def work(name: str, seed: int, folder: str) -> None:
    """Answer numbers of damages, one a line, with what came of them."""
    patient = Patient(name, Path(folder), seed)
    for line in sys.stdin:
        print(json.dumps(patient.examine(int(line))), flush=True)


class Worker:
    """A process that does damage, started again when it dies of it."""

    def __init__(self, name: str, seed: int) -> None:
        self.command = [sys.executable, __file__, "--formats", name, "--seed", str(seed)]
        self.process: subprocess.Popen | None = None

    def ask(self, number: int) -> dict[str, Any]:
        if self.process is None:
            self.folder = tempfile.TemporaryDirectory()
            self.process = subprocess.Popen(
                [*self.command, "--worker", self.folder.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        patience = threading.Timer(PATIENCE, self.process.kill)
        patience.start()
        self.process.stdin.write(f"{number}\n")  # type: ignore[union-attr]
        self.process.stdin.flush()  # type: ignore[union-attr]
        answer = self.process.stdout.readline()  # type: ignore[union-attr]
        hung = not patience.is_alive()
        patience.cancel()
        if answer:
            return json.loads(answer)
        code = self.close()
        return {"done": "?", "outcome": "hangs" if hung else "crashes", "told": f"exit {code}", "report": "",
                "faults": []}  # fmt: skip

    def close(self) -> int:
        process, self.process = self.process, None
        if process is None:
            return 0
        process.stdin.close()  # type: ignore[union-attr]
        code = process.wait()
        self.folder.cleanup()
        return code


def examine(name: str, numbers: range, seed: int) -> Iterator[tuple[int, dict[str, Any]]]:
    worker = Worker(name, seed)
    try:
        for number in numbers:
            yield number, worker.ask(number)
    finally:
        worker.close()


def campaign(name: str, count: int, seed: int) -> Table:
    table = Table(name)
    for number, result in examine(name, range(count), seed):
        table.damages += 1
        for outcome in (result["outcome"], *result["faults"]):
            setattr(table, outcome, getattr(table, outcome) + 1)
        if result["faults"] or result["outcome"] in ("odd", "hangs", "crashes"):
            line = " | ".join(str(value) for value in result.values())
            print(f"{name} --seed {seed} --only {number}: {line}", file=sys.stderr)
    return table


def markdown(tables: list[Table]) -> str:
    names = list(asdict(Table("")))
    rows = [[str(value) for value in asdict(table).values()] for table in tables]
    return "\n".join(f"| {' | '.join(line)} |" for line in [names, ["---"] * len(names), *rows])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--formats", nargs="+", default=writable_formats())
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of a damage")
    parser.add_argument("--markdown", action="store_true", help="print a table when all is done, not JSON lines")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.formats[0], arguments.seed, arguments.worker)
        return 0
    if arguments.only is not None:
        for name in arguments.formats:
            for _, result in examine(name, range(arguments.only, arguments.only + 1), arguments.seed):
                print(json.dumps({"format": name, **result}, indent=1))
        return 0
    tables = []
    for name in arguments.formats:
        tables.append(campaign(name, arguments.count, arguments.seed))
        if not arguments.markdown:
            print(json.dumps(asdict(tables[-1])), flush=True)
    if arguments.markdown:
        print(markdown(tables))
    return 1 if any(table.faults for table in tables) else 0


if __name__ == "__main__":
    sys.exit(main())
