"""What losses and rollouts cost: the tensors they make, and how many operations it takes."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from toy_batches import clips, debug_model

from stable_worldmodel.wm.distributions import TwoHot
from stable_worldmodel.wm.loss import PLDMLoss, SIGReg, weighted_sum
from stable_worldmodel.wm.mlp import EnsembleMLP


class Recorded(TorchDispatchMode):
    """Every operation inside by name, and the numbers in the largest tensor that one returned."""

    def __init__(self):
        super().__init__()
        self.names, self.sizes = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.names.append(func.overloadpacket.__name__)
        self.sizes += [(leaf.numel(), self.names[-1]) for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        return result

    @property
    def largest(self):
        return max(self.sizes)[0]


def recorded(call):
    with Recorded() as record:
        call()
    return record


def rng():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    "loss",
    [
        lambda z: SIGReg(directions=8)(z.transpose(0, 1), rng()),
        lambda z: weighted_sum(PLDMLoss()(z))[0],
        lambda z: weighted_sum(PLDMLoss(first_only=True)(z))[0],
    ],
    ids=["sigreg", "pldm", "pldm-first"],
)
def test_tensors_of_a_regulariser_grow_with_the_batch_and_not_with_its_square(loss):
    def largest(batch):
        z = torch.randn(batch, 4, 6, generator=rng(), requires_grad=True)
        return recorded(lambda: loss(z).backward()).largest

    assert largest(4096) <= 2 * largest(2048)


def test_an_ensemble_takes_as_many_operations_as_one_member():
    x = torch.randn(7, 4, generator=rng())
    one, five = (EnsembleMLP(members, [4, 8, 8, 3]) for members in (1, 5))
    assert len(recorded(lambda: one(x)).names) == len(recorded(lambda: five(x)).names)
    # The Q heads of TD-MPC2 are one such ensemble: more of them make no loss longer.
    batch = clips(4, 4, size=48)
    two, seven = (debug_model("tdmpc2", critics=critics, critic_dropout=0.0) for critics in (2, 7))
    counts = [len(recorded(lambda model=model: model(batch, rng())[0].backward()).names) for model in (two, seven)]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("squash", [True, False])
def test_two_hot_takes_as_many_operations_for_any_number_of_bins_and_numbers(squash):
    def count(bins, numbers):
        twohot = TwoHot(bins, -5.0, 5.0, squash)
        logits, x = torch.zeros(numbers, bins), torch.linspace(-3, 3, numbers)
        return len(recorded(lambda: (twohot.loss(logits, x), twohot.decode(logits), twohot.encode(x))).names)

    assert count(11, 3) == count(101, 500)


@torch.no_grad()
def test_a_patch_rollout_writes_frames_into_memory_it_asked_for_once():
    model = debug_model("prejepa", rollout_rows=6).eval()
    info = {"pixels": clips(2, 1)["pixels"]}

    def rollout(horizon, last_only=False):
        candidates = torch.randn(2, 3, horizon, 2, generator=rng())
        return recorded(lambda: model.rollout(info, candidates, last_only=last_only))

    patches, width = model.backbone.patches, model.predictor.positions.shape[-1]
    frame = 2 * 3 * patches * width
    joined = []
    for horizon in (4, 9):
        made = rollout(horizon).sizes
        assert (
            sum(size == frame * (1 + horizon) and "empty" in name for size, name in made) == 2
        )  # result, and its rows
        joined.append(max(size for size, name in made if name in ("cat", "stack", "clone")))
    assert joined[0] == joined[1]
    # All that is kept for the last frame alone is a window of frames.
    assert rollout(9, last_only=True).largest == rollout(4, last_only=True).largest
