"""Dataset-driven evaluation: recorded starts, recorded goals, success at any step of the budget."""

import numpy as np
import pytest

from stable_worldmodel.data import load_dataset
from stable_worldmodel.envs.two_room import ExpertPolicy
from stable_worldmodel.errors import ContractError
from stable_worldmodel.policy import BasePolicy, RandomPolicy
from stable_worldmodel.world import World

SIZE = (32, 32)
LONG = "an episode with at least six rows"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "rooms.h5"
    with World("swm/TwoRoom-v1", 4, SIZE, max_episode_steps=60) as world:
        world.set_policy(ExpertPolicy(action_noise=1.0, seed=0))
        world.collect(path, 12, seed=0, progress=False)
    return load_dataset(path)


def long_episodes(dataset, offset, count):
    return np.flatnonzero(dataset.lengths > offset)[:count].tolist()


class Replay(BasePolicy):
    """Repeats the recorded actions of the items."""

    type = "replay"

    def __init__(self, dataset, episodes, starts):
        super().__init__()
        self.actions = [
            dataset.read_rows(e, s, int(dataset.lengths[e]))["action"] for e, s in zip(episodes, starts, strict=True)
        ]
        self.t = 0
        self.seen = []

    def get_action(self, info, **kwargs):
        self.seen.append({key: np.copy(info[key]) for key in ("pixels", "goal", "state", "goal_state")})
        self.t += 1
        return np.stack([np.nan_to_num(actions[min(self.t, len(actions)) - 1]) for actions in self.actions])


def evaluate(dataset, policy, episodes, starts, offset=10, budget=10, **kwargs):
    with World("swm/TwoRoom-v1", len(episodes), SIZE, max_episode_steps=200) as world:
        world.set_policy(policy)
        return world.evaluate(
            dataset=dataset,
            episodes_idx=episodes,
            start_steps=starts,
            goal_offset=offset,
            eval_budget=budget,
            **kwargs,
        )


def test_replaying_the_recording_reaches_every_goal(dataset):
    episodes = long_episodes(dataset, 12, 5)
    starts = [0, 1, 2, 0, 1][: len(episodes)]
    policy = Replay(dataset, episodes, starts)
    results = evaluate(dataset, policy, episodes, starts)
    assert results["episode_successes"].all()
    assert results["seeds"].tolist() == [dataset.read_rows(e, 0, 1)["seed"][0] for e in episodes]
    for item, (episode, start) in enumerate(zip(episodes, starts, strict=True)):
        rows = dataset.read_rows(episode, start, start + 11)
        first = policy.seen[0]
        np.testing.assert_array_equal(first["state"][item, 0], rows["state"][0])
        np.testing.assert_array_equal(first["pixels"][item, 0], rows["pixels"][0])
        for seen in policy.seen:  # the goal is there at every step
            np.testing.assert_array_equal(seen["goal"][item, 0], rows["pixels"][-1])
            np.testing.assert_array_equal(seen["goal_state"][item, 0], rows["state"][-1])


def test_the_rollout_follows_the_recording_row_by_row(dataset):
    (episode,) = long_episodes(dataset, 12, 1)
    policy = Replay(dataset, [episode], [2])
    results = evaluate(dataset, policy, [episode], [2], offset=10, budget=10)
    rows = dataset.read_rows(episode, 2, 13)
    for t in range(int(results["episode_lengths"][0])):
        np.testing.assert_array_equal(policy.seen[t]["pixels"][0, 0], rows["pixels"][t])


def test_standing_still_fails_unless_the_start_is_the_goal(dataset):
    class Still(BasePolicy):
        def get_action(self, info, **kwargs):
            return np.zeros((len(info["state"]), 2), np.float32)

    episodes = long_episodes(dataset, 20, 4)
    results = evaluate(dataset, Still(), episodes, [0] * len(episodes), offset=20, budget=5)
    for episode, success in zip(episodes, results["episode_successes"], strict=True):
        rows = dataset.read_rows(episode, 0, 21)
        assert success == (np.linalg.norm(rows["state"][0] - rows["state"][-1]) < 16)


def test_an_item_does_not_depend_on_its_neighbours(dataset):
    episodes = long_episodes(dataset, 12, 4)
    together = evaluate(dataset, RandomPolicy(seed=3), episodes, [0] * len(episodes), budget=30)
    for item, episode in enumerate(episodes):
        alone = evaluate(dataset, RandomPolicy(seed=3), [episode], [0], budget=30)
        assert alone["episode_lengths"][0] == together["episode_lengths"][item]
        assert alone["episode_successes"][0] == together["episode_successes"][item]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offset": 0}, "goal_offset=0"),
        ({"budget": 0}, "eval_budget=0"),
        ({"offset": 10_000}, "item 0: start 0 .* leaves episode"),
        ({"starts": [-1, 0]}, "item 0: start -1"),
        ({"episodes": [LONG, 99]}, "item 1: episode 99"),
        ({"starts": [0]}, "expected one per env"),
    ],
)
def test_items_that_do_not_exist_are_named(dataset, change, message):
    (long,) = long_episodes(dataset, 5, 1)
    arguments = {"episodes": [LONG, LONG], "starts": [0, 0], "offset": 5, "budget": 5, **change}
    arguments["episodes"] = [long if episode is LONG else episode for episode in arguments["episodes"]]
    with pytest.raises(ContractError, match=message):
        evaluate(dataset, RandomPolicy(seed=0), **arguments)


def test_a_dataset_of_another_image_size_is_refused(dataset):
    with World("swm/TwoRoom-v1", 1, (48, 48)) as world:
        world.set_policy(RandomPolicy(seed=0))
        with pytest.raises(ContractError, match="image_shape"):
            world.evaluate(
                dataset=dataset,
                episodes_idx=long_episodes(dataset, 3, 1),
                start_steps=[0],
                goal_offset=3,
                eval_budget=5,
            )


def test_videos_show_rollout_recording_and_goal(dataset, tmp_path):
    av = pytest.importorskip("av")
    episodes = long_episodes(dataset, 12, 2)
    results = evaluate(dataset, RandomPolicy(seed=0), episodes, [0, 0], budget=6, video=tmp_path)
    for item, length in enumerate(results["episode_lengths"]):
        with av.open(str(tmp_path / f"env_{item}.mp4")) as container:
            frames = list(container.decode(video=0))
        assert len(frames) == length + 1
        assert frames[0].width > 3 * 160


def test_callables_restore_envs_that_have_no_hook(dataset):

    import gymnasium as gym

    from stable_worldmodel.envs.two_room.env import TwoRoomEnv

    class Plain(TwoRoomEnv):
        @property
        def reset_options_from_dataset(self):
            raise AttributeError("no such hook")

    if "toy/PlainRoom-v0" not in gym.registry:
        gym.register("toy/PlainRoom-v0", entry_point=Plain)
    (episode,) = long_episodes(dataset, 12, 1)
    calls = [
        {"method": "_set_state", "args": {"state": {"value": "state"}}},
        {"method": "_set_goal_state", "args": {"goal_state": {"value": "goal_state"}}},
        {"method": "missing", "args": {}},
    ]
    with World("toy/PlainRoom-v0", 1, SIZE, max_episode_steps=200) as world:
        world.set_policy(Replay(dataset, [episode], [0]))
        results = world.evaluate(
            dataset=dataset, episodes_idx=[episode], start_steps=[0], goal_offset=10, eval_budget=10, callables=calls
        )
    assert results["success_rate"] == 100
