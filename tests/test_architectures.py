"""The networks of chapter 2.6: their cards say what the code says, and the shipped weights do what the cards say."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from scoreatlas.bench import architectures
from scoreatlas.bench.architectures import RECIPES, denoised, flops, held_out, load_run, run, task
from scoreatlas.errors import AtlasError
from scoreatlas.nn.dit import DiT
from scoreatlas.nn.precondition import DenoisingLoss
from scoreatlas.priors import zoo


@pytest.mark.parametrize("name", RECIPES)
def test_card_is_that_of_the_recipe(name):
    recipe, card = RECIPES[name], zoo.load(name).card
    net = recipe.make()
    assert (card["class"], card["config"]) == (type(net).__name__, net.config)
    assert card["parameters"] == sum(p.numel() for p in net.parameters())
    assert card["flops"] == flops(net)
    assert [r["seed"] for r in card["evidence"]["seeds"]] == list(recipe.seeds)
    assert {r["updates"] for r in card["evidence"]["seeds"]} == {recipe.steps}
    for r in card["evidence"]["seeds"]:
        assert r["curve"][-1][0] == recipe.steps
        assert r["curve"][-1][1] < 0.7 * r["curve"][0][1]


@pytest.mark.parametrize("name", ["dit-adaln-zero", "mmdit-separate"])
def test_shipped_weights_have_the_loss_on_their_card(name):
    """The same noise on the same images: what is left is half precision, measured below 0.1 %."""
    found = zoo.load(name)
    assert abs(held_out(task(found.net), 0.0) / found.card["evidence"]["seeds"][0]["loss"] - 1) < 5e-3


@pytest.mark.parametrize("name", ["unet-skips", "unet-no-skips"])
def test_shipped_unets_denoise_as_their_card_says(name):
    found = zoo.load(name)
    trainable = task(found.net)
    assert isinstance(trainable, DenoisingLoss)
    want = {r["sigma"]: r["psnr"] for r in found.card["evidence"]["seeds"][0]["denoising"]}
    assert abs(denoised(trainable.net, 0.4)["psnr"] - want[0.4]) < 0.05  # dB


def test_skips_matter_at_low_noise_and_hardly_at_high():
    """The claim of the chapter, as a law on the cards."""
    first, second = (
        {r["sigma"]: r["psnr"] for r in zoo.load(n).card["evidence"]["seeds"][0]["denoising"]}
        for n in ("unet-skips", "unet-no-skips")
    )
    assert first[0.05] - second[0.05] > 2 * abs(first[3.2] - second[3.2])


def test_a_recipe_trains_measures_and_saves_each_seed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    name = "dit-adaln"
    tiny = replace(RECIPES[name], make=lambda: DiT(side=16, dim=8, depth=1, heads=2), seeds=(3, 4), steps=2, batch=4)
    monkeypatch.setitem(RECIPES, name, tiny)
    monkeypatch.setattr(architectures, "measure", lambda trainable: {"loss": 0.5})
    saved = {}
    monkeypatch.setattr(zoo, "save", lambda name, net, about: saved.update(name=name, net=net, about=about))
    architectures.train(name, tmp_path)
    assert [r["seed"] for r in saved["about"]["evidence"]["seeds"]] == [3, 4]
    average, _ = load_run(name, 3, tmp_path)
    other, _ = load_run(name, 4, tmp_path)
    vector = torch.nn.utils.parameters_to_vector
    assert torch.equal(vector(average.parameters()), vector(saved["net"].parameters()))  # the first seed
    assert not torch.equal(vector(average.parameters()), vector(other.parameters()))
    before = (tmp_path / f"{name}-3.safetensors").stat().st_mtime_ns
    assert run(name, 3, tmp_path)["loss"] == 0.5  # from its record
    assert (tmp_path / f"{name}-3.safetensors").stat().st_mtime_ns == before
    with pytest.raises(AtlasError, match="no recipe"):
        architectures.train("nothing", tmp_path)
