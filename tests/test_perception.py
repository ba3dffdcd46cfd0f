"""LPIPS against an independent reckoning, and what the range of samples should cover."""

import numpy as np
import pytest
import torch
from scipy.signal import correlate
from skimage import data

from scoreatlas.errors import AtlasError
from scoreatlas.metrics.lpips import PADDINGS, SCALE, SHIFT, STRIDES, _weights, lpips
from scoreatlas.metrics.ranges import range_coverage


def astronaut() -> torch.Tensor:
    return torch.from_numpy(data.astronaut()[100:196, 180:276]).permute(2, 0, 1)[None].float() / 127.5 - 1


def by_hand(x: np.ndarray) -> list[np.ndarray]:
    """AlexNet's activations with scipy's correlation, channel by channel."""
    w = {k: v.double().numpy() for k, v in _weights().items()}
    h = (x - np.array(SHIFT)[:, None, None]) / np.array(SCALE)[:, None, None]
    found = []
    for i in range(5):
        if i in (1, 2):
            n = (h.shape[1] - 3) // 2 + 1
            h = np.stack([[h[:, 2 * r : 2 * r + 3, 2 * c : 2 * c + 3].max((1, 2)) for c in range(n)] for r in range(n)])
            h = h.transpose(2, 0, 1)
        p, s = PADDINGS[i], STRIDES[i]
        padded = np.pad(h, ((0, 0), (p, p), (p, p)))
        h = np.stack([correlate(padded, k, "valid")[0] for k in w[f"conv{i}.weight"]])[:, ::s, ::s]
        h = np.maximum(h + w[f"conv{i}.bias"][:, None, None], 0)
        found.append(h / (np.sqrt((h**2).sum(0)) + 1e-10))
    return found


def test_lpips_is_the_formula_of_the_paper():
    x = astronaut()
    noisy = (x + 0.2 * torch.from_numpy(np.random.default_rng(0).standard_normal(x.shape)).float()).clamp(-1, 1)
    pairs = zip(by_hand(x[0].double().numpy()), by_hand(noisy[0].double().numpy()), strict=True)
    want = 0.0
    for i, (a, b) in enumerate(pairs):
        head = _weights()[f"head{i}"].double().numpy().reshape(-1)
        want += float(np.einsum("c,chw->hw", head, (a - b) ** 2).mean())
    assert float(lpips(noisy, x)) == pytest.approx(want, rel=1e-4)  # single against double precision
    assert float(lpips(x, x)) == 0


def test_lpips_grows_with_noise_and_takes_grey_images():
    x = astronaut()[:, :1]
    noise = torch.from_numpy(np.random.default_rng(1).standard_normal(x.shape)).float()
    values = [float(lpips(x + s * noise, x)) for s in (0.05, 0.1, 0.2, 0.4)]
    assert values == sorted(values) and values[0] > 0
    assert torch.equal(
        lpips(x, x + 0.1 * noise), lpips(x.expand(-1, 3, -1, -1), (x + 0.1 * noise).expand(-1, 3, -1, -1))
    )


def test_lpips_refuses_small_images():
    with pytest.raises(AtlasError, match="at least 64"):
        lpips(torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 32))


@pytest.mark.parametrize("r", [2, 4, 9])
def test_exchangeable_truth_is_covered_as_often_as_it_should_be(r):
    """20,000 pixels of any continuous law: the relative coverage is 1 within five standard errors."""
    z = torch.from_numpy(np.random.default_rng(r).gamma(0.5, size=(20_000, r + 1)))
    found = float(range_coverage(z[:, :r].T[None], z[:, r][None]))
    nominal = (r - 1) / (r + 1)
    assert abs(found - 1) < 5 * (nominal * (1 - nominal) / 20_000) ** 0.5 / nominal
    assert (
        float(range_coverage(z[:, :1].T.expand(r, -1)[None], z[:, r][None])) == 0
    )  # copies of one sample cover nothing
