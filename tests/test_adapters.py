"""Priors of others: the galaxies of galaxygrad, diffusers' networks, denoisers on [0, 1]."""

import hashlib
import io
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scoreatlas.errors import AtlasError
from scoreatlas.nn.mixer import ScoreMixer
from scoreatlas.peers.denoisers import FromUnitRange
from scoreatlas.priors import galaxies
from scoreatlas.priors.galaxies import GalaxyDenoiser, Source, load_galaxies, read_mixer
from scoreatlas.rng import Rng

F64 = torch.float64
SHAPE, PATCH, FEATURES, HIDDEN, BLOCKS = (1, 8, 12), 4, 5, 7, 2  # 6 patches


def rng(*seeds: int, rows: int = 1) -> Rng:
    return Rng(seeds, rows, dtype=F64)


# Galaxies


def leaves(seed: int = 0) -> list[np.ndarray]:
    """A small network's arrays, as equinox writes them."""
    draw, tokens = np.random.default_rng(seed), 6
    mixers = [
        (HIDDEN, tokens),
        (HIDDEN,),
        (tokens, HIDDEN),
        (tokens,),
        (HIDDEN, FEATURES),
        (HIDDEN,),
        (FEATURES, HIDDEN),
    ]
    norms = [(FEATURES,), *[(FEATURES, tokens)] * 2, *[(tokens, FEATURES)] * 2]
    shapes = [
        (FEATURES, 2, PATCH, PATCH), (FEATURES, 1, 1), (1, FEATURES, PATCH, PATCH), (1, 1, 1),
        *(mixers + norms) * BLOCKS, (FEATURES, tokens), (FEATURES, tokens),
    ]  # fmt: skip
    return [*(draw.normal(0, 0.5, s).astype(np.float32) for s in shapes), np.array(10.0)]


def written(arrays: list[np.ndarray]) -> bytes:
    stream = io.BytesIO()
    for a in arrays:
        np.save(stream, a)
    return stream.getvalue()


def plain(arrays: list[np.ndarray], image: np.ndarray, t: float) -> np.ndarray:
    """The network in loops over patches: the layers of equinox, with a correlation in the transposed convolution."""
    a = iter([np.asarray(v, np.float64) for v in arrays])
    w_in, b_in, w_out, b_out = (next(a) for _ in range(4))
    stack = np.stack([image, np.full_like(image, t / 10)])
    rows, columns = image.shape[0] // PATCH, image.shape[1] // PATCH
    cut = [
        stack[:, i * PATCH : (i + 1) * PATCH, j * PATCH : (j + 1) * PATCH] for i in range(rows) for j in range(columns)
    ]
    z = np.stack([np.tensordot(w_in, p, 3) + b_in[:, 0, 0] for p in cut], 1)  # (features, patches)

    def norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
        return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * weight + bias

    for _ in range(BLOCKS):
        (w1, b1, w2, b2), (u1, c1, u2, c2) = ([next(a) for _ in range(4)] for _ in range(2))
        n1, n2 = ([next(a), next(a)] for _ in range(2))
        z = z + np.stack([w2 @ np.maximum(w1 @ r + b1, 0) + b2 for r in norm(z, *n1)])
        y = norm(z.T, *n2)
        z = z + np.stack([u2 @ np.maximum(u1 @ r + c1, 0) + c2 for r in y]).T
    z = norm(z, next(a), next(a))
    out = np.zeros_like(image)
    for k in range(rows * columns):
        i, j = k // columns * PATCH, k % columns * PATCH
        out[i : i + PATCH, j : j + PATCH] = np.tensordot(z[:, k], w_out[0], 1)[::-1, ::-1]
    return out + b_out[0, 0, 0]


def test_the_mixer_is_the_one_written_out():
    net = read_mixer(written(leaves()), SHAPE).double()
    x, t = rng(1, 2).normal(*SHAPE), torch.tensor([0.3, 7.0], dtype=F64)
    expected = np.stack([plain(leaves(), x[i, 0].numpy(), float(t[i])) for i in range(2)])
    assert np.allclose(net(x, t)[:, 0].detach().numpy(), expected, atol=1e-10)


class GaussianScore(nn.Module):
    """The score of v ~ N(3, 2^2) under their diffusion, which knows nothing of ours."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        t = t[:, None, None, None]
        return -(x - 3 * (-t / 2).exp()) / (1 + 3 * (-t).exp())  # variance 4 e^-t + 1 - e^-t


@pytest.mark.parametrize("sigma", [0.05, 0.5, 3.0, 30.0, 1000.0])
def test_the_denoiser_of_a_gaussian_is_the_gaussian_one(sigma):
    """u = v / 4.5 - 1 is N(3 / 4.5 - 1, (2 / 4.5)^2). Past t = 10, what is left of the image is 1 / 148 of v."""
    d = GalaxyDenoiser(GaussianScore(), 4.5)
    x = 0.2 * rng(3, 4).normal(*SHAPE) + sigma * rng(5, 6).normal(*SHAPE)
    mean, variance = 3 / 4.5 - 1, (2 / 4.5) ** 2
    expected = mean + variance / (variance + sigma**2) * (x - mean)
    found = d(x, torch.tensor(sigma, dtype=F64))
    assert torch.allclose(found, expected, atol=1e-9 if sigma < 33 else 0.03)
    each = d(x, torch.tensor([sigma, 1.0], dtype=F64))
    assert torch.allclose(each[0], found[0])


@pytest.fixture
def small(monkeypatch, tmp_path: Path) -> tuple[Path, list[np.ndarray]]:
    """A wheel with one small network in it, whose name is ``small``."""
    arrays = leaves(1)
    raw = written(arrays)
    monkeypatch.setitem(galaxies.SOURCES, "small", Source("small.eqx", 8, 4.5, hashlib.sha256(raw).hexdigest()))
    with zipfile.ZipFile(tmp_path / galaxies.WHEEL, "w") as archive:
        archive.writestr("galaxygrad/small.eqx", raw)
    return tmp_path, arrays


def test_files_are_checked(small):
    folder, arrays = small
    with pytest.raises(AtlasError, match=r"a leaf of shape \(7, 6\) where \(7, 4\) is needed"):
        load_galaxies(folder, "small")  # 6 patches, where 8 x 8 has 4
    for at, message in (
        (folder / "nowhere", r"no galaxygrad at .*nowhere: get it with scoreatlas.priors.galaxies.fetch\(folder\)"),
        (folder, "eqx_hsc_ScoreNet32.eqx"),
    ):
        with pytest.raises(AtlasError, match=message) as error:
            load_galaxies(at)
        assert "\n" not in str(error.value)
    with pytest.raises(AtlasError, match="no galaxies named 'm31'; there are: hsc32, hsc64, ztf32, quasar72, small"):
        load_galaxies(folder, "m31")
    (folder / "small.eqx").write_bytes(written(arrays[:-1]))
    with pytest.raises(AtlasError, match="small.eqx in .* is not the file of galaxygrad 0.2.1: its sha256 differs"):
        load_galaxies(folder, "small")
    with pytest.raises(AtlasError, match="30 leaves are not those of a score mixer"):
        read_mixer(written(arrays[:-1]), SHAPE)
    with pytest.raises(AtlasError, match="leaf 1 is not a .npy array without objects"):
        read_mixer(written(arrays[:1]) + written([np.array([{}], dtype=object)]), SHAPE)


def test_a_network_of_galaxygrad_s_size_loads_from_wheel_folder_and_file(monkeypatch, tmp_path):
    net = ScoreMixer((1, 8, 8), 4, FEATURES, HIDDEN, BLOCKS)
    arrays = [p.detach().numpy() for p in galaxies._slots(net)]
    arrays[1], arrays[3] = arrays[1].reshape(-1, 1, 1), arrays[3].reshape(-1, 1, 1)
    arrays[2] = np.ascontiguousarray(arrays[2].transpose(1, 0, 2, 3)[:, :, ::-1, ::-1])
    raw = written([*arrays, np.array(10.0)])
    monkeypatch.setitem(galaxies.SOURCES, "mine", Source("mine.eqx", 8, 4.5, hashlib.sha256(raw).hexdigest()))
    (tmp_path / "galaxygrad").mkdir()
    (tmp_path / "galaxygrad" / "mine.eqx").write_bytes(raw)
    with zipfile.ZipFile(tmp_path / galaxies.WHEEL, "w") as archive:
        archive.writestr("galaxygrad/mine.eqx", raw)
    x = rng(0).normal(1, 8, 8).float()
    for path in (tmp_path, tmp_path / galaxies.WHEEL, tmp_path / "galaxygrad"):
        p = load_galaxies(path, "mine")
        assert p.shape == (1, 8, 8)
        found = p.denoiser(x, torch.tensor(0.5))
        assert torch.allclose(found, GalaxyDenoiser(net, 4.5)(x, torch.tensor(0.5)))


# Denoisers on [0, 1]


def test_range_and_sigma_of_a_unit_range_denoiser():
    """On [0, 1], N(0.4, 0.1^2); on [-1, 1] that is N(-0.2, 0.2^2)."""

    def wiener(u: Tensor, sigma: Tensor) -> Tensor:
        assert sigma.shape == (2,) and u.dtype == F64
        return 0.4 + 0.01 / (0.01 + sigma.square())[:, None, None, None] * (u - 0.4)

    x, sigma = rng(0, 1).normal(1, 4, 4), torch.tensor([0.1, 0.7], dtype=F64)
    gain = (0.04 / (0.04 + sigma.square()))[:, None, None, None]
    assert torch.allclose(FromUnitRange(wiener, F64)(x, sigma), -0.2 + gain * (x + 0.2))
    same = FromUnitRange(wiener, F64)(x, sigma[0])
    assert torch.allclose(same[1], -0.2 + gain[0, 0, 0, 0] * (x[1] + 0.2))


def test_a_denoiser_of_deepinv():
    """There and back again: its own network behind both adapters is itself."""
    dinv = pytest.importorskip("deepinv", reason="pip install 'scoreatlas[peers]'")
    from scoreatlas.peers.deepinv import UnitRange

    torch.manual_seed(0)
    model = dinv.models.DRUNet(1, 1, nc=[4, 4, 4, 4], nb=1, pretrained=None).eval()
    u = torch.rand(2, 1, 16, 16)
    back = UnitRange(FromUnitRange(model), torch.float32)
    with torch.no_grad():
        for sigma in (0.1, torch.tensor([0.05, 0.2])):
            assert torch.allclose(back(u, sigma), model(u, sigma), atol=1e-5)


# diffusers


@pytest.fixture
def diffusers():
    return pytest.importorskip("diffusers", reason="pip install 'scoreatlas[peers]'")


def tiny(library, channels: int = 1, **options):
    torch.manual_seed(0)
    return library.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=channels, block_out_channels=(8, 8), layers_per_block=1,
        norm_num_groups=4, down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
        **options,
    )  # fmt: skip


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("pipeline", [False, True])
def test_the_denoiser_is_the_scheduler_s_estimate(diffusers, tmp_path, prediction, pipeline):
    """At a level of the chain, DDPMScheduler's pred_original_sample; betas that are not the default ones."""
    from scoreatlas.peers.unet import load_unet

    chain = diffusers.DDPMScheduler(
        100,
        beta_start=0.001,
        beta_end=0.05,
        beta_schedule="scaled_linear",
        prediction_type=prediction,
        clip_sample=False,
    )
    net = tiny(diffusers).eval()
    net.save_pretrained(tmp_path / "unet" if pipeline else tmp_path)
    chain.save_pretrained(tmp_path / "scheduler" if pipeline else tmp_path)
    p = load_unet(tmp_path, pipeline=pipeline, dtype=F64)
    assert p.shape == (1, 8, 8)
    x = rng(0, 1).normal(1, 8, 8)
    for k in (0, 37, 99):
        a = chain.alphas_cumprod[k].double()
        with torch.no_grad():
            out = net.double()(x, k).sample
            expected = chain.step(out, k, x).pred_original_sample
        found = p.denoiser(x / a.sqrt(), ((1 - a) / a).sqrt())
        assert torch.allclose(found, expected, atol=2e-5), k  # alphas are stored in float32


def test_levels_between_and_beyond(diffusers):
    """The index of the geometric mean of two levels is half-way; far above, the image is scaled down to the last."""
    from scoreatlas.peers.unet import UNetDenoiser

    seen = []

    class Spy(nn.Module):
        def forward(self, x, k):
            seen.append((x, k))
            return type("Output", (), {"sample": torch.cat([0 * x, x], 1)})  # a learned variance comes second

    a = torch.tensor([0.99, 0.8, 0.3], dtype=F64)
    levels = ((1 - a) / a).sqrt()
    d, x = UNetDenoiser(Spy(), a, "epsilon"), rng(0).normal(1, 2, 2)
    assert torch.equal(d(x, (levels[1] * levels[2]).sqrt()), x)  # no noise is predicted
    assert seen[0][1].tolist() == pytest.approx([1.5])
    d(x, levels[0] / 10)
    assert seen[1][1].tolist() == [0.0]
    assert torch.allclose(d(x, 100 * levels[2]), x / 100)
    assert seen[2][1].tolist() == [2.0] and torch.allclose(seen[2][0], x / 100 * a[2].sqrt())


def test_bad_checkpoints_end_in_one_line(diffusers, tmp_path):
    from scoreatlas.peers.unet import UNetDenoiser, load_unet

    with pytest.raises(AtlasError, match="no UNet2DModel with its scheduler at") as error:
        load_unet(tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(AtlasError, match="prediction must be"):
        UNetDenoiser(nn.Identity(), torch.tensor([0.9, 0.1]), "score")
    tiny(diffusers, num_class_embeds=3).save_pretrained(tmp_path)
    diffusers.DDPMScheduler().save_pretrained(tmp_path)
    with pytest.raises(AtlasError, match="wants a class"):
        load_unet(tmp_path)


# The page


PAGE = (Path(__file__).parents[1] / "book/adapters.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.S)


@pytest.mark.parametrize("code", EXAMPLES, ids=[str(i) for i in range(len(EXAMPLES))])
def test_the_page_of_adapters_runs(code, monkeypatch, tmp_path):
    """Each block by itself, where what it needs is there: a library, or the wheel in the folder ``downloads``."""
    need = re.match(r"# needs (?:the )?(\w+)", code)
    if need and need[1] == "hub":
        pytest.skip("downloads from the hub")
    if need and need[1] == "galaxygrad":
        folder = Path(__file__).parents[1] / "downloads"
        if not (folder / galaxies.WHEEL).exists():
            pytest.skip("no wheel of galaxygrad in downloads")
        monkeypatch.chdir(folder.parent)
    elif need:
        pytest.importorskip(need[1])
    space: dict = {}
    exec(compile(code, "book/adapters.md", "exec"), space)
    if "gains" in space:
        assert max(space["gains"].values()) < 1
    if "x" in space:  # the data are fitted to their noise
        assert float((space["m"].y - space["m"].A(space["x"])).std()) < 3 * 0.05
    if "prior" in space:
        c, h, w = space["prior"].shape
        d = space["prior"].denoiser(torch.zeros(2, c, h, w), torch.tensor(0.5))
        assert d.shape == (2, c, h, w) and bool(torch.isfinite(d).all())
