"""Continues the dataset argv[1] of format argv[2] until there are argv[3] episodes, or until it kills itself.

It does that right before its argv[4]-th change to which files there are, frames aside; with 0 it prints their number.
"""

import os
import signal
import sys
import threading
from itertools import count
from pathlib import Path

from episodes import make_episode

from stable_worldmodel.data import open_writer

CHANGES = {"os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "shutil.rmtree"}
FRAMES = (".jpeg", ".png", ".mp4")

if __name__ == "__main__":
    path, name, total, last = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    changes, folder = count(1), str(Path(path).parent)  # the log and the hidden folder are in it, too

    def audit(event, arguments):
        creates = event == "open" and str(arguments[1])[0] in "wxa"
        # Threads write frames only, in an order that changes.
        if not (creates or event in CHANGES) or threading.current_thread() is not threading.main_thread():
            return
        if folder in str(arguments[0]) and not str(arguments[0]).endswith(FRAMES) and next(changes) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(audit)
    with open_writer(path, format=name, mode="append") as writer:
        for k in range(writer.num_episodes, total):
            writer.write_episode(make_episode(k))
            print(writer.num_episodes, flush=True)
    print(next(changes) - 1)
