import gymnasium as gym
import numpy as np
import pytest
import torch
from PIL import Image

from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.planning import CEMSolver, GoalMSE, ShootingCostEvaluator
from stable_worldmodel.planning.diagnostics import (
    imagine,
    imagined_frames,
    per_env,
    plot_search,
    plot_states,
    recorders,
    write_gif,
)
from stable_worldmodel.planning.playground import DoubleIntegrator
from stable_worldmodel.policy import PlanConfig

pytest.importorskip("matplotlib")


class Pictures(DoubleIntegrator):
    """A world that shows its position as brightness."""

    def decode(self, emb):
        return emb[..., :1, None, None].expand(*emb.shape[:-1], 3, 4, 5)


@pytest.fixture
def planned():
    cost = ShootingCostEvaluator(Pictures(dimensions=1), GoalMSE())
    solver = CEMSolver(cost=cost, num_samples=16, topk=4, n_steps=6, callbacks=recorders(), batch_size=1)
    solver.configure(action_space=gym.spaces.Box(-1, 1, (2, 1)), n_envs=2, config=PlanConfig(5, 1))
    info = {"state": torch.tensor([[[0.0, 0.5]], [[1.0, 0.0]]]), "goal_state": torch.tensor([[[0.5, 0.0]]] * 2)}
    return cost, info, solver.solve(info)


def test_the_search_is_drawn_from_the_recorded_histories(planned, tmp_path):
    result = planned[2]
    figure = plot_search(result, tmp_path / "search.png")
    assert Image.open(tmp_path / "search.png").size[0] > 300
    best = per_env(result["callbacks"]["BestCostRecorder"])
    assert best.shape == (2, 6)
    drawn = [line.get_ydata() for line in figure.axes[0].lines]
    for row in (*best, best.mean(axis=0)):
        assert any(np.array_equal(row, line) for line in drawn)
    with pytest.raises(MissingKeyError, match="recorders"):
        plot_search({"costs": []})


def test_what_was_imagined_is_the_rollout_of_the_plan(planned, tmp_path):
    cost, info, result = planned
    latents = imagine(cost, info, result["actions"])
    assert latents.shape == (2, 6, 2)
    assert ((latents[:, -1] - info["goal_state"][:, 0]) ** 2).sum(dim=1).tolist() == pytest.approx(result["costs"])
    executed = latents[0].numpy() + 0.1
    plans = {0: latents[0].numpy(), 2: latents[0, 2:].numpy()}
    figure = plot_states(executed, plans, ["x", "v"], tmp_path / "states.svg")
    assert (tmp_path / "states.svg").stat().st_size > 1000
    assert [axes.get_title() for axes in figure.axes] == ["x", "v"]
    assert [len(line.get_ydata()) for line in figure.axes[0].lines] == [6, 4, 6]
    with pytest.raises(ContractError, match="expected \\(T, d\\)"):
        plot_states(executed, {0: np.zeros((3, 5))})


def test_imagined_futures_become_a_video_if_the_model_decodes(planned, tmp_path):
    cost, info, result = planned
    frames = imagined_frames(cost.model, imagine(cost, info, result["actions"]))
    assert frames.shape == (2, 6, 4, 5, 3)
    assert frames.dtype == np.uint8
    assert frames[1, 0].max() == 255
    path = write_gif(frames, tmp_path / "future.gif", fps=5)
    with Image.open(path) as video:
        assert video.size == (10, 4)
        assert video.n_frames >= 2
    with pytest.raises(ContractError, match="no decode"):
        imagined_frames(DoubleIntegrator(), torch.zeros(1, 2, 4))
    with pytest.raises(ContractError, match="uint8"):
        write_gif(np.zeros((2, 4, 4, 3)), tmp_path / "x.gif")
