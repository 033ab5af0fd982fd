"""What the tests of sharded collection share."""

from __future__ import annotations

import numpy as np

from stable_worldmodel.data import load_dataset, verify
from stable_worldmodel.policy import RandomPolicy
from stable_worldmodel.world import World


def in_turn(function, jobs, tick=None):
    """An executor: one job after the other, the last one first."""
    for job in reversed(list(jobs)):
        yield function(job)


def collect(path, episodes=7, seed=0, num_envs=2, policy_seed=1, max_length=6, **options):
    with World("toy/Walk-v0", num_envs, (8, 8), verbose=0, max_length=max_length) as world:
        world.set_policy(RandomPolicy(seed=policy_seed))
        world.collect(path, episodes, seed=seed, progress=False, **options)


def assert_equal_datasets(expected, found):
    """Episodes, rows, dtypes, metadata; and what the journals say."""
    a, b = load_dataset(expected), load_dataset(found)
    assert a.metadata == b.metadata
    assert a.column_names == b.column_names
    np.testing.assert_array_equal(a.lengths, b.lengths)
    np.testing.assert_array_equal(a.get_col_data("ep_idx"), b.get_col_data("ep_idx"))
    for k, (mine, theirs) in enumerate(zip(a.iter_episodes(), b.iter_episodes(), strict=True)):
        assert mine.keys() == theirs.keys()
        for name, values in mine.items():
            if name == "_episode_data":
                assert values == theirs[name]
                continue
            assert values.dtype == theirs[name].dtype, name
            np.testing.assert_array_equal(theirs[name], values, err_msg=f"episode {k}, {name}")
    report = verify(found, deep=True)
    assert report.ok, report.faults
    assert report.episodes == report.checked == len(a.lengths)


def leftovers(folder, *datasets):
    """What lies in a folder beside these datasets and their journals."""
    known = {name + side for name in datasets for side in ("", ".journal")}
    return sorted(path.name for path in folder.iterdir() if path.name not in known)
