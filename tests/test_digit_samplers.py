"""The recorded comparison of samplers on digits: its distance, and that its records are whole and fresh."""

import json

import pytest
import torch

from scoreatlas.bench import digit_samplers
from scoreatlas.metrics.frechet import frechet
from scoreatlas.rng import Rng


def test_frechet_distance_in_closed_form():
    """A shift adds its square; a factor c gives (1 - c)^2 tr C around the mean, plus that of the mean."""
    x = Rng([0], 300, dtype=torch.float64).normal(5) @ torch.diag(torch.tensor([1.0, 2, 3, 4, 5]).double())
    shift = torch.tensor([0.3, 0, -1, 0, 2]).double()
    assert frechet(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet(x, x + shift) == pytest.approx(float(shift.square().sum()), rel=1e-9)
    want = 0.25 * float(x.mean(0).square().sum() + torch.cov(x.T).trace())
    assert frechet(x, 0.5 * x) == pytest.approx(want, rel=1e-9)
    with pytest.raises(ValueError, match="at least 2 rows, got 1 and 300"):
        frechet(x[:1], x)


def test_records_are_whole_and_fresh():
    rows = digit_samplers.rows()
    found = [record for record in digit_samplers.read() if record["key"] != "floor"]
    assert len(found) >= 10
    for record in found:
        assert record["provenance"]["source_hash"] == digit_samplers.fingerprint(rows[record["key"]]), record["key"]


def test_an_altered_record_is_refused(tmp_path):
    record = {"key": "floor", "name": "x", "metrics": {"frechet": 1.0}}
    digit_samplers._write("floor", record, tmp_path)
    assert digit_samplers.read(tmp_path) == [record]
    path = tmp_path / "floor.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"metrics": {"frechet": 0.5}}))
    with pytest.raises(ValueError, match="does not match its own sha256"):
        digit_samplers.read(tmp_path)
