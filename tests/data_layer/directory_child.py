"""Appends episodes to argv[1] until there are argv[2], mode argv[3], format argv[4]; prints the count after each."""

import sys

from directory_episodes import make_views

from stable_worldmodel.data import open_writer

if __name__ == "__main__":
    path, total, mode, format = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
    with open_writer(path, format, mode) as writer:
        print(writer.num_episodes, flush=True)
        for k in range(writer.num_episodes, total):
            writer.write_episode(make_views(k))
            print(writer.num_episodes, flush=True)
