"""Two processes with half a batch each compute what one computes of the whole batch."""

import os
import tempfile
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from toy_batches import clips

from stable_worldmodel.wm.loss import PLDMLoss, SIGReg, weighted_sum
from stable_worldmodel.wm.registry import build_model, preset_config

BATCH = 64


def embeddings():
    return torch.randn(BATCH, 4, 8, generator=torch.Generator().manual_seed(0))


def regularisers(z):
    """Loss of both regularisers, with equal directions in all processes."""
    sigreg = SIGReg(directions=32)(z.transpose(0, 1), torch.Generator().manual_seed(7))
    return torch.stack([sigreg, weighted_sum(PLDMLoss()(z))[0]])


def model_of(name):
    torch.manual_seed(0)
    return build_model(preset_config(name, "debug", action_dim=2, image_size=32))


def loss_of(model, batch):
    return model(batch, torch.Generator().manual_seed(7))[0]


def train(name, batch, wrap=lambda model: model):
    """The weights after two steps, and the losses."""
    model = model_of(name)
    wrapped, losses = wrap(model), []
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    for _ in range(2):
        loss = loss_of(wrapped, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return {"losses": losses, "state": {key: value.detach() for key, value in model.state_dict().items()}}


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        half = slice(rank * BATCH // 2, (rank + 1) * BATCH // 2)
        z = embeddings()[half].requires_grad_()
        values = regularisers(z)
        values.sum().backward()
        # Without a generator the processes would draw different directions.
        shared = SIGReg(directions=4)(embeddings()[half].transpose(0, 1))
        batch = {key: value[half] for key, value in clips(BATCH).items()}
        results = {"values": values.detach(), "grad": z.grad, "shared": shared}
        for name in ("lewm", "pldm"):
            results[name] = train(name, batch, torch.nn.parallel.DistributedDataParallel)
        torch.save(results, f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def halves():
    """What the two processes computed."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(work, args=(folder,), nprocs=2)
        yield [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
def test_regularisers_of_two_halves_are_those_of_the_whole_batch(halves):
    z = embeddings().requires_grad_()
    values = regularisers(z)
    values.sum().backward()
    # SIGReg is the same everywhere; PLDM's terms over time are means over the clips of a process.
    torch.testing.assert_close(halves[0]["values"][0], halves[1]["values"][0])
    torch.testing.assert_close((halves[0]["values"] + halves[1]["values"]) / 2, values.detach(), rtol=1e-5, atol=1e-6)
    # Each process's gradient is of a loss that both share; their mean over processes is that of one.
    grad = torch.cat([half["grad"] for half in halves]) / 2
    torch.testing.assert_close(grad, z.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.slow
def test_processes_without_a_generator_share_their_directions(halves):
    torch.testing.assert_close(halves[0]["shared"], halves[1]["shared"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lewm", "pldm"])
def test_two_processes_train_the_same_model_as_one(halves, name):
    whole = train(name, clips(BATCH))
    torch.testing.assert_close(halves[0][name]["state"], halves[1][name]["state"])
    for key, expected in whole["state"].items():
        torch.testing.assert_close(halves[0][name]["state"][key], expected, rtol=1e-3, atol=1e-5, msg=key)
    losses = torch.tensor([half[name]["losses"] for half in halves]).mean(dim=0)
    torch.testing.assert_close(losses, torch.tensor(whole["losses"]), rtol=1e-4, atol=1e-5)
