"""The code of the planning pages does what they say."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from quadratic import TargetCost

from stable_worldmodel.planning import GoalMSE, WeightedSum
from stable_worldmodel.policy import PlanConfig

DOCS = Path(__file__).parents[2] / "docs"


def run(page, section, names=None):
    """The names that the first block of a section defines."""
    names = {"__name__": "documentation", **(names or {})}
    exec((DOCS / page).read_text().split(f"\n## {section}")[1].split("```python")[1].split("```")[0], names)
    return names


def test_the_solver_of_the_documentation_works():
    solver = run("howto/solver.md", "The file")["HalvingSolver"](cost=TargetCost())
    space = gym.spaces.Box(-1, 1, (3, 2))
    bounds = (np.full(2, -0.1), np.full(2, 0.1))
    solver.configure(action_space=space, n_envs=3, config=PlanConfig(4, 1), action_bounds=bounds)
    info = {"target": torch.full((3, 4, 2), 0.5)}
    result = solver.solve(info)
    assert result["actions"].abs().max() <= 0.1
    assert max(result["costs"]) < (info["target"][0]).square().sum()


def test_the_objective_of_the_documentation_works():
    names = run("planning_objectives.md", "One of your own", {"WeightedSum": WeightedSum, "GoalMSE": GoalMSE})
    through = torch.tensor([[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]])
    around = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    info = {"predicted_emb": torch.stack([through, around])[None], "goal_emb": torch.ones(1, 1, 2)}
    assert names["away_from_the_disc"](info).tolist() == [[0.20000000298023224, 0.0]]
    assert names["objective"](info)[0, 0] > names["objective"](info)[0, 1] == 0.0


def test_the_playground_of_the_documentation_works():
    text = (DOCS / "planning_playground.md").read_text()
    names = {"__name__": "documentation"}
    exec(text.split("```python")[1].split("```")[0], names)
    assert names["result"]["costs"][0] < 1e-3
