"""Appends episodes to argv[1] in format argv[2] until there are argv[3]; prints their number after each commit.

With argv[4], no file may grow beyond so many bytes: writing fails there, as it does on a full disk. Says `ready` when
everything has been imported and used once, and the dataset is about to be opened.
"""

import resource
import sys
import tempfile
from pathlib import Path

from episodes import make_episode

from stable_worldmodel.data import open_writer

if __name__ == "__main__":
    path, name, total = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with tempfile.TemporaryDirectory() as folder, open_writer(Path(folder) / "first", format=name) as writer:
        writer.write_episode(make_episode(0))
    if len(sys.argv) > 4:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), resource.RLIM_INFINITY))
    print("ready", flush=True)
    with open_writer(path, format=name, mode="append") as writer:
        print(writer.num_episodes, flush=True)
        for k in range(writer.num_episodes, total):
            writer.write_episode(make_episode(k))
            print(writer.num_episodes, flush=True)
