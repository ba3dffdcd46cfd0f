"""The learned priors: integrity of the files, and the claims on the cards."""

import json
import shutil

import pytest
import torch

from scoreatlas.bench.image_worlds import IMAGES
from scoreatlas.errors import AtlasError
from scoreatlas.metrics.distortion import psnr
from scoreatlas.metrics.judge import load_judge
from scoreatlas.nn.precondition import Preconditioned
from scoreatlas.nn.unet import UNet
from scoreatlas.priors.pretrained import WEIGHTS, available, load_pretrained, save_pretrained
from scoreatlas.rng import Rng
from scoreatlas.samplers.ode import Heun

NAMES = ["chest", "ct", "digits", "mri", "patches"]


def test_the_priors_of_the_book_are_there():
    assert available() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_fewer_than_three_million_parameters_and_true_card(name):
    found = load_pretrained(name)
    count = sum(p.numel() for p in found.denoiser.parameters())
    assert count == found.card["parameters"] <= 3_000_000


@pytest.mark.parametrize("name", NAMES)
def test_the_card_says_what_the_network_does(name):
    """One point of the denoising curve, remeasured on a quarter of the images: within 3 standard errors."""
    found = load_pretrained(name)
    point = next(p for p in found.card["evidence"]["denoising"] if p["sigma"] == 0.4)
    n = {"ct": 48, "mri": 36}.get(
        name, 32
    )  # neighbouring slices are alike, so a part of them is no sample: all the card's
    x = IMAGES[name]("test")[:n]
    y = x + 0.4 * Rng(range(n)).normal_like(x)
    with torch.no_grad():
        values = psnr(found.denoiser(y, torch.tensor(0.4)), x)
    assert abs(float(values.mean()) - point["learned"]) < 3 * float(values.std()) / n**0.5


@pytest.mark.parametrize("name", NAMES)
def test_the_learned_denoiser_wins_where_it_must(name):
    """Against total variation and wavelets on held-out images; trunks, learnt from three persons, may lose by 2 dB.

    That loss is on its card and in appendix A.3; the day it is gone, this exception must go.
    """
    margins = {}
    for point in load_pretrained(name).card["evidence"]["denoising"]:
        if point["sigma"] >= 0.1:
            margins[point["sigma"]] = point["learned"] - max(point["tv"], point["wavelet"])
    if name == "ct":
        assert -2 < min(margins.values()) < 0
    else:
        assert min(margins.values()) > 0, margins


def test_a_class_is_what_was_asked_for():
    """Samples of the class-conditional prior, named by the independent judge: at least 27 of 32 agree."""
    labels = torch.arange(8) % 10
    found = load_pretrained("digits")
    drawn = torch.cat([Heun(steps=12)(None, found.prior(label=int(k)), Rng([int(k)], rows=4)) for k in labels])
    with torch.no_grad():
        agree = load_judge()(drawn).argmax(1) == labels.repeat_interleave(4)
    assert int(agree.sum()) >= 27


@pytest.mark.parametrize("damage", ["altered", "truncated", "unknown", "class"])
def test_bad_input_is_one_clear_line(damage, tmp_path):
    for file in ("digits.safetensors", "digits.json"):
        shutil.copy(WEIGHTS / file, tmp_path / file)
    path, name = tmp_path / "digits.safetensors", "digits"
    raw = bytearray(path.read_bytes())
    if damage == "altered":
        raw[-1] ^= 1
    path.write_bytes(raw[: len(raw) // 2] if damage == "truncated" else raw)
    if damage == "unknown":
        name = "faces"
    with pytest.raises(AtlasError) as error:
        load_pretrained(name, weights=tmp_path).prior(label=10)
    words = {"altered": "sha256", "truncated": "sha256", "unknown": "digits", "class": "10 classes"}[damage]
    assert words in str(error.value) and "\n" not in str(error.value)


def test_saving_and_loading_is_rounding_to_half(tmp_path):
    torch.manual_seed(1)
    net = UNet(1, (8, 16), patch=2)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.1)
    denoiser = Preconditioned(net, 0.5)
    save_pretrained("tiny", denoiser, (1, 8, 8), {"data": "none"}, tmp_path)
    again = load_pretrained("tiny", weights=tmp_path)
    x = Rng([0]).normal(1, 8, 8)
    half = [p.half().float() for p in denoiser.parameters()]
    assert all(torch.equal(p, q) for p, q in zip(again.denoiser.parameters(), half, strict=True))
    with torch.no_grad():
        for p, q in zip(denoiser.parameters(), half, strict=True):
            p.copy_(q)
        expected, found = (d(x, torch.tensor(0.3)) for d in (denoiser, again.denoiser))
    # the loaded network stores its pixels in another order, so sums differ by float32 rounding
    assert float((found - expected).abs().max()) < 1e-4 * float(expected.abs().max())
    assert json.loads((tmp_path / "tiny.json").read_text())["data"] == "none"
    assert not list(tmp_path.glob("*partial"))
