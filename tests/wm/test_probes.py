"""Probes find what an embedding holds, and not what it does not."""

import os

import pytest
import torch

from stable_worldmodel.errors import ContractError, NotFoundError
from stable_worldmodel.wm.probes import (
    Probe,
    attach_probe,
    evaluate_probe,
    fit_probe,
    get_probe,
    load_probe,
    save_probe,
)


@pytest.fixture
def data():
    rng = torch.Generator().manual_seed(0)
    emb = 3 + 2 * torch.randn(600, 6, generator=rng)
    target = emb @ torch.randn(6, 2, generator=rng) + 10
    return emb[:400], target[:400], emb[400:], target[400:]


def test_a_linear_probe_recovers_a_linear_quantity(data):
    emb, target, test_emb, test_target = data
    report = evaluate_probe(fit_probe(emb, target), test_emb, test_target)
    assert report["mse"] < 1e-4
    assert report["r"] > 0.9999


def test_a_perceptron_recovers_what_a_linear_probe_cannot(data):
    emb, _, test_emb, _ = data
    target, test_target = ((x[:, :1] - 3).square() for x in (emb, test_emb))
    linear, perceptron = (evaluate_probe(fit_probe(emb, target, hidden=h), test_emb, test_target) for h in (0, 64))
    assert linear["mse"] > 0.8
    assert perceptron["mse"] < 0.3


def test_noise_cannot_be_probed(data):
    emb, _, test_emb, _ = data
    rng = torch.Generator().manual_seed(1)
    report = evaluate_probe(
        fit_probe(emb, torch.randn(400, 1, generator=rng)), test_emb, torch.randn(200, 1, generator=rng)
    )
    assert report["mse"] > 0.9
    assert abs(report["r"]) < 0.3


def test_equal_seeds_fit_equal_probes_and_leave_the_global_generator(data):
    emb, target, *_ = data
    before = torch.get_rng_state()
    first, second = (fit_probe(emb, target, hidden=8, steps=5).state_dict() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_redundant_dimensions_do_no_harm(data):
    emb, target, test_emb, test_target = data
    twice, test_twice = (torch.cat([x, x, torch.ones(len(x), 1)], dim=1) for x in (emb, test_emb))
    assert evaluate_probe(fit_probe(twice, target), test_twice, test_target)["mse"] < 1e-3


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ContractError, match=r"expected \(N, D\) and \(N, d\)"):
        fit_probe(torch.zeros(3, 2), torch.zeros(4, 1))


# -- kept with a model ------------------------------------------------------------------------------------------------


def test_probes_are_kept_under_their_names():
    model, probe = torch.nn.Linear(2, 2), Probe(2, 1)
    assert get_probe(model, "position") is None
    attach_probe(model, "position", probe)
    assert get_probe(model, "position") is probe
    assert get_probe(model, "angle") is None
    other = Probe(2, 1)
    attach_probe(model, "position", other)
    assert get_probe(model, "position") is other
    assert any(name.startswith("_probes.position.") for name in model.state_dict())
    with pytest.raises(ContractError, match="expected a torch module"):
        attach_probe(model, "position", "probe")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_of_probes_come_back(tmp_path, suffix):
    model, path = torch.nn.Linear(2, 2), tmp_path / f"probe{suffix}"
    attach_probe(model, "position", Probe(2, 1))
    expected = {name: value.clone() for name, value in get_probe(model, "position").state_dict().items()}
    if suffix == ".pt":
        torch.save(expected, path)
    else:
        save_probe(model, "position", path)
    attach_probe(model, "position", Probe(2, 1))
    loaded = load_probe(model, "position", path).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.items())


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_what_is_no_probe_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = torch.nn.Linear(2, 2)
    with pytest.raises(ContractError, match="attach_probe first"):
        load_probe(model, "position", "nowhere")
    attach_probe(model, "position", Probe(2, 1))
    with pytest.raises(NotFoundError, match="nowhere"):
        load_probe(model, "position", "nowhere")
    torch.save(Bomb(), "bomb.pt")
    with pytest.raises(ContractError, match="does not hold the weights"):
        load_probe(model, "position", "bomb.pt")
    assert not (tmp_path / "exploded").exists()
