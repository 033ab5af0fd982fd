"""What counts as success in Gymnasium's own environments, as data.

Their `terminated` flag means the goal in some (MountainCar) and failure in others (CartPole), and their info does not
say which. `stable_worldmodel.wrappers.add_success` turns a rule into `is_success`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gymnasium.envs.registration import parse_env_id


@dataclass(frozen=True)
class SuccessRule:
    """Conditions on the step that ends an episode; all must hold. No other step is a success.

    The end may be a time limit, as `truncated` says, whether the env's own or a shorter one around it.
    """

    terminated: bool | None = None  # the value that flag must have; None: any
    last_reward_above: float = -math.inf
    min_return: float = -math.inf  # the least sum of rewards

    def __call__(self, reward: float, terminated: bool, truncated: bool, total_reward: float) -> bool:
        """Whether a step with these results, after which the rewards add up to `total_reward`, is a success."""
        return (
            bool(terminated or truncated)
            and self.terminated in (None, bool(terminated))
            and reward > self.last_reward_above
            and total_reward >= self.min_return
        )


SURVIVED = SuccessRule(terminated=False)  # termination is a fall
REACHED = SuccessRule(terminated=True)  # nothing but the goal terminates
WON = SuccessRule(terminated=True, last_reward_above=0.0)  # goal and failure terminate; the goal is rewarded


def solved(threshold: float) -> SuccessRule:
    """The episode collects what Gymnasium registers as `reward_threshold`."""
    return SuccessRule(min_return=threshold)


# Name of the id without version -> rule; None where an episode has no notion of success.
RULES: dict[str, SuccessRule | None] = {
    "CartPole": SURVIVED,
    "MountainCar": REACHED,
    "MountainCarContinuous": REACHED,
    "Acrobot": REACHED,
    "Pendulum": None,
    "LunarLander": WON,  # at rest +100, crashed or out of view -100
    "LunarLanderContinuous": WON,
    "BipedalWalker": solved(300.0),  # terminates by a fall and at the far end
    "BipedalWalkerHardcore": solved(300.0),
    "CarRacing": SuccessRule(terminated=True, last_reward_above=-100.0),  # a finished lap; -100 for leaving the field
    "FrozenLake": WON,
    "FrozenLake8x8": WON,
    "CliffWalking": REACHED,  # the cliff leads back to the start and does not terminate
    "CliffWalkingSlippery": REACHED,
    "Taxi": REACHED,  # the passenger is dropped off at the destination
    "Blackjack": WON,  # a draw is none
    "Hopper": SURVIVED,
    "Walker2d": SURVIVED,
    "Ant": SURVIVED,
    "Humanoid": SURVIVED,
    "InvertedPendulum": SURVIVED,
    "InvertedDoublePendulum": SURVIVED,
    "HalfCheetah": solved(4800.0),  # this one and those below never terminate
    "Swimmer": solved(360.0),
    "Reacher": solved(-3.75),
    "Pusher": None,  # its threshold of 0 is above every possible return
    "HumanoidStandup": None,
}


def success_rule(env_id: str) -> SuccessRule | None:
    """The rule for an id such as "CartPole-v1", whatever its version; None for others and where there is no notion.

    A "module:" in front is ignored. Ids with a namespace are not Gymnasium's own and have no rule.
    """
    namespace, name, _ = parse_env_id(env_id.rpartition(":")[2])
    return None if namespace else RULES.get(name)
