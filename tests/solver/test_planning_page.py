from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from quadratic import TargetCost

from stable_worldmodel.policy import PlanConfig

PAGE = Path(__file__).parents[2] / "docs" / "planning.md"


def test_the_solver_of_the_documentation_works():
    section = PAGE.read_text().split("## A solver in one file")[1]
    names = {"__name__": "documentation"}
    exec(section.split("```python")[1].split("```")[0], names)
    solver = names["PredictiveSampling"](TargetCost())
    space = gym.spaces.Box(-1, 1, (3, 2))
    bounds = (np.full(2, -0.1), np.full(2, 0.1))
    solver.configure(action_space=space, n_envs=3, config=PlanConfig(4, 1), action_bounds=bounds)
    info = {"target": torch.full((3, 4, 2), 0.5)}
    result = solver.solve(info)
    assert result["actions"].abs().max() <= 0.1
    assert max(result["costs"]) < (info["target"][0]).square().sum()
