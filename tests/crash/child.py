"""Appends episodes to argv[1] in format argv[2] until there are argv[3]; prints their number after each commit."""

import sys

from episodes import make_episode

from stable_worldmodel.data import open_writer

if __name__ == "__main__":
    path, name, total = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with open_writer(path, format=name, mode="append") as writer:
        print(writer.num_episodes, flush=True)
        for k in range(writer.num_episodes, total):
            writer.write_episode(make_episode(k))
            print(writer.num_episodes, flush=True)
