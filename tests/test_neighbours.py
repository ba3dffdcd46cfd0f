"""The record of answers that hang on their neighbours in the batch."""

import pytest

from scoreatlas.bench.peers.neighbours import NAMES, STEPS, dependence, load
from scoreatlas.solvers.guidance.dps import DPS


def test_the_record_says_what_ours_gives_now():
    """Ours is independent to the last bit; its PSNR is the recorded one within the rounding of single precision."""
    told, now = load()["solvers"]["DPS"], dependence(DPS(steps=STEPS))
    assert told["difference"] == now["difference"] == 0
    assert now["psnr"] == pytest.approx(told["psnr"], abs=0.1)


def test_a_norm_over_the_batch_shows():
    told = load()["solvers"]
    assert set(told) == set(NAMES)
    assert told["AzulaDPS"]["difference"] > 0.01  # dps.py of azula 0.11.1 takes one norm for the batch
    assert told["DeepinvDPS"]["difference"] == 0


def test_the_peer_still_does_it():
    azula = pytest.importorskip("scoreatlas.peers.azula", exc_type=ImportError)
    assert dependence(azula.AzulaDPS(steps=5))["difference"] > 1e-3
