"""Appends episodes to argv[1] until there are argv[2], with write mode argv[3]; prints the count after each commit."""

import sys

from episode_factory import make_goal_episode

from stable_worldmodel.data import HDF5Writer

if __name__ == "__main__":
    path, total, mode = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    with HDF5Writer(path, mode) as writer:
        print(writer.num_episodes, flush=True)
        for k in range(writer.num_episodes, total):
            writer.write_episode(make_goal_episode(k, side=48))
            print(writer.num_episodes, flush=True)
