"""Appends episodes to argv[1], with format argv[2], until there are argv[3]; argv[4] is `commit_every`, 0 for default.

Prints the number of episodes after each commit.
"""

import sys

from directory_episodes import make_views

from stable_worldmodel.data import open_writer

if __name__ == "__main__":
    path, format, total, every = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    with open_writer(path, format, commit_every=every or None) as writer:
        print(writer.num_episodes, flush=True)
        for k in range(writer.num_episodes, total):
            writer.write_episode(make_views(k))
            print(writer.num_episodes, flush=True)
