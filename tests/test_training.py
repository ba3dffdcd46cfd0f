"""The training loop: it learns a known answer, resumes, and never leaves half a file."""

import pytest
import torch
from torch import Tensor, nn

import scoreatlas.training as training
from scoreatlas.nn.precondition import DenoisingLoss, Preconditioned
from scoreatlas.priors.mixture import gaussian
from scoreatlas.rng import Rng
from scoreatlas.training import batches, fit, to_unit

COVARIANCE = torch.tensor([[0.36, 0.3], [0.3, 0.36]])


class Perceptron(nn.Module):
    """Two pixels and a noise level in, two pixels out."""

    classes = 0

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 48), nn.SiLU(), nn.Linear(48, 48), nn.SiLU(), nn.Linear(48, 2))

    def forward(self, x: Tensor, noise: Tensor, label: Tensor | None) -> Tensor:
        return self.layers(torch.cat([x.flatten(1), noise[:, None] / 1000], 1)).reshape(x.shape)


def task() -> DenoisingLoss:
    with torch.random.fork_rng():
        torch.manual_seed(0)  # torch's layers initialise themselves from the global generator
        return DenoisingLoss(Preconditioned(Perceptron(), 0.6))


def pixels(n: int = 20_000) -> dict[str, Tensor]:
    prior = gaussian(torch.zeros(1, 1, 2), COVARIANCE)
    return {"image": prior.sample(Rng([7], rows=n))}


def parameters(net: nn.Module) -> Tensor:
    return torch.cat([p.flatten() for p in net.parameters()])


def test_fit_reaches_the_exact_posterior_mean():
    prior, net = gaussian(torch.zeros(1, 1, 2), COVARIANCE), fit(task(), pixels(), steps=1500, batch=256, lr=1e-2)
    rng = Rng([8], rows=4000)
    x0 = prior.sample(rng)
    for sigma in (0.1, 0.4, 1.0):
        level = torch.tensor(sigma)
        x = x0 + sigma * rng.normal_like(x0)
        exact = prior(x, level)
        excess = (net(x, level) - exact).square().mean() / (x0 - exact).square().mean()
        # measured: 0.0004, 0.001, 0.002; the untrained net, which is right for independent pixels: 0.06, 0.28, 0.16
        assert float(excess.detach()) < 0.01, sigma


def test_the_average_is_returned_and_the_trained_net_kept():
    trained = task()
    average = fit(trained, pixels(100), steps=30, batch=8, warmup=1)
    start = parameters(task().net)
    assert not torch.equal(parameters(average), parameters(trained.net))
    assert not torch.equal(parameters(average), start)
    assert not any(p.requires_grad for p in average.parameters()) and not average.training


def test_same_seed_same_bits():
    runs = [parameters(fit(task(), pixels(100), steps=10, batch=8, seed=s)) for s in (0, 0, 1)]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_resume_continues_where_it_stopped(tmp_path):
    path, rows = tmp_path / "a" / "net.safetensors", []
    fit(task(), pixels(100), steps=20, batch=8, every=10, checkpoint=path, log=rows.append)
    done = fit(task(), pixels(100), steps=20, batch=8, every=10, checkpoint=path, log=rows.append)
    assert [row["step"] for row in rows] == [10, 20]  # the second call had nothing to do ...
    again = task()
    average = fit(again, pixels(100), steps=40, batch=8, every=10, checkpoint=path, log=rows.append)
    assert [row["step"] for row in rows] == [10, 20, 30, 40]  # ... the third the rest
    assert not torch.equal(parameters(average), parameters(done))
    assert rows[-1]["seconds"] > rows[1]["seconds"]
    # Adam's moments came along: its step counter says 40, not 20
    saved = training.load_file(path)
    assert float(saved["optimizer.0.step"]) == 40


def test_resuming_restores_weights_and_average_bit_for_bit(tmp_path):
    path, first = tmp_path / "net.safetensors", task()
    average = fit(first, pixels(100), steps=20, batch=8, every=10, checkpoint=path)
    second = task()
    restored = fit(second, pixels(100), steps=20, batch=8, every=10, checkpoint=path)
    assert torch.equal(parameters(first.net), parameters(second.net))
    assert torch.equal(parameters(average), parameters(restored))


def test_a_killed_save_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    fit(task(), pixels(100), steps=10, batch=8, every=10, checkpoint=path)
    before = path.read_bytes()

    def killed(tensors, file, metadata):
        file.write_bytes(before[:100])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "save_file", killed)
        with pytest.raises(KeyboardInterrupt):
            fit(task(), pixels(100), steps=20, batch=8, every=10, checkpoint=path)
    assert path.read_bytes() == before
    rows = []
    fit(task(), pixels(100), steps=20, batch=8, every=10, checkpoint=path, log=rows.append)
    assert [row["step"] for row in rows] == [20]


def test_bytes_become_the_unit_range_and_floats_stay():
    data = {"image": torch.arange(256, dtype=torch.uint8), "label": torch.arange(256)}
    batch = next(batches(data, 64, Rng([0])))
    assert torch.equal(batch["image"], batch["label"].float() / 127.5 - 1)  # rows stay together
    assert to_unit(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]
