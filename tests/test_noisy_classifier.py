"""The classifier of noisy digits, its card, and the record of guided digits."""

import math

import pytest
import torch

from scoreatlas import data
from scoreatlas.bench import guidance
from scoreatlas.errors import AtlasError
from scoreatlas.nn.noisy_classifier import NoisyClassifier, NoisyCrossEntropy
from scoreatlas.priors import zoo
from scoreatlas.priors.guided import Chosen, ClassifierGuided
from scoreatlas.rng import Rng
from scoreatlas.training import fit


def fresh(seed: int = 0, **more) -> NoisyClassifier:
    torch.manual_seed(seed)
    return NoisyClassifier(**more)


def test_rows_and_noise_levels_do_not_mix():
    net, x = fresh().eval(), Rng([0], 3).normal(1, 32, 32)
    sigma = torch.tensor([0.1, 1.0, 20.0])
    together = net(x, sigma)
    alone = torch.cat([net(x[i : i + 1], sigma[i]) for i in range(3)])
    assert float((together - alone).detach().abs().max()) < 1e-5


@pytest.mark.parametrize("sigma", [1e2, 1e4])
def test_far_above_the_data_only_class_frequencies_are_left_and_the_pull_is_bounded(sigma):
    """Logits less the frequencies fall like 1 / sigma; sigma^2 times their gradient, which would grow like sigma
    without the factor of the logits, keeps its size. Any weights, as initialised."""
    net = fresh()
    with torch.no_grad():
        net.frequencies.copy_(torch.linspace(-1, 1, 10))
    level = torch.tensor(sigma)
    unit = Rng([0], 8).normal(1, 32, 32)
    rest = (net(sigma * unit, level) - net.frequencies).abs().max()
    assert float(rest) < 5 * net.sigma_data / sigma
    pull = ClassifierGuided(lambda x, s: x, Chosen(net, torch.tensor(3)), 1.0).parts(sigma * unit, level)[1]
    assert 1e-4 < float(pull.flatten(1).norm(dim=1).mean()) < 5


def test_loss_of_a_classifier_that_knows_nothing_is_the_logarithm_of_the_classes():
    net = fresh()
    for p in (*net.head.parameters(), net.frequencies):
        torch.nn.init.zeros_(p)
    batch = {"image": Rng([1], 16).normal(1, 32, 32), "label": torch.arange(16) % 10}
    assert NoisyCrossEntropy(net).loss(batch, Rng([0], 16)).tolist() == pytest.approx([math.log(10)] * 16, rel=1e-6)


def test_it_learns_two_levels_of_grey_as_well_as_anyone_can():
    """Images all -a or all a: the mean of a noisy image decides, and exact probabilities are a logistic function of it.

    At sigma = 16 with 32 x 32 pixels and a = 0.5 the two means are 2 standard deviations apart: 84 % is the best.
    """
    label = torch.arange(512) % 2
    x = (label.float() - 0.5)[:, None, None, None].expand(-1, 1, 32, 32).contiguous()
    loss = NoisyCrossEntropy(fresh(classes=2, width=8), math.log(16.0), 0.0)
    net = fit(loss, {"image": x, "label": label}, steps=150, batch=64, lr=3e-3, ema=0.95)
    noisy = x + 16 * Rng([5], 512).normal(1, 32, 32)
    with torch.no_grad():
        right = float((net(noisy, torch.tensor(16.0)).argmax(1) == label).double().mean())
    best = 0.5 * (1 + math.erf(1 / math.sqrt(2)))
    error = math.sqrt(best * (1 - best) / 512)
    assert best - 6 * error < right < best + 4 * error  # a little is lost in 150 updates


@pytest.mark.parametrize("name", ["digits-classifier", "digits-classifier-clean"])
def test_card_tells_the_accuracy_on_held_out_digits(name):
    """Another noise draw on 500 digits, five standard errors; the card's own noise is not repeated."""
    net, card = zoo.load(name)
    images, labels = (v[:500] for v in data.digits("test"))
    assert card["split"] == "train" and card["parameters"] == sum(p.numel() for p in net.parameters())
    for row in card["evidence"][3::3]:
        noisy = images + row["sigma"] * Rng([7], 500).normal_like(images)
        with torch.no_grad():
            right = float((net(noisy, torch.tensor(row["sigma"])).argmax(1) == labels).double().mean())
        p = row["accuracy"]
        assert abs(right - p) < 5 * math.sqrt(p * (1 - p) * (1 / 500 + 1 / 2000)) + 1e-3


def test_the_classifier_that_has_seen_noise_is_the_better_one_under_noise():
    noisy, clean = (zoo.load(name).card["evidence"] for name in ("digits-classifier", "digits-classifier-clean"))
    gap = {a["sigma"]: a["accuracy"] - b["accuracy"] for a, b in zip(noisy, clean, strict=True)}
    assert gap[1.6] > 0.2 and abs(gap[0.01]) < 0.02


def test_energy_distance_of_two_gaussians():
    """In one dimension 2 E|X - Y| - E|X - X'| - E|Y - Y'|, with E|N(m, 2)| = 2 / sqrt(pi) e^{-m^2/4} + m erf(m / 2)."""
    rng = Rng([3], 3000)
    x, y = rng.normal(1) + 1.0, rng.normal(1)
    usual = 2 / math.sqrt(math.pi)
    want = (2 * (usual * math.exp(-0.25) + math.erf(0.5)) - 2 * usual) / usual
    assert guidance.energy(x, y) == pytest.approx(want, abs=0.05)  # 5 standard errors at 3000 are 0.04
    assert abs(guidance.energy(rng.normal(1), y)) < 0.01


def test_the_record_is_complete_fresh_and_says_what_the_chapter_says():
    record = guidance.load("quick")
    assert not guidance.stale(record)
    assert [row["line"] for row in record["rows"]] == [vars(line) for line in guidance.lines()]

    def mean(kind, w, quantity):
        rows = [r for r in record["rows"] if (r["line"]["kind"], r["line"]["w"]) == (kind, w)]
        return sum(r[quantity] for r in rows) / len(rows)

    for kind in ("classifier-free", "classifier"):
        assert mean(kind, 8.0, "accuracy") > mean(kind, 0.0, "accuracy")
        assert mean(kind, 8.0, "spread") < mean(kind, 0.0, "spread")
    assert mean("clean classifier", 8.0, "accuracy") < mean("classifier", 8.0, "accuracy") - 0.2
    assert mean("interval", 8.0, "spread") > mean("classifier-free", 8.0, "spread")


def test_a_missing_record_says_how_to_make_it(tmp_path):
    with pytest.raises(AtlasError, match=r"is missing: run `python -m scoreatlas.bench.guidance --profile quick`"):
        guidance.load("quick", tmp_path)
