r"""Score models of galaxies, trained by others: the networks of ``galaxygrad`` 0.2.1 (Sampson et al.), as priors.

The package holds MLP-Mixers trained on single galaxies of the surveys HSC and ZTF and on simulations, and names no
licence: nothing of it is in this repository. :func:`fetch` downloads the wheel from the package index, and
:func:`load_galaxies` reads a network out of it after comparing its sha256. Nothing is unpickled, and neither jax nor
equinox is needed.

Conversions. The networks see :math:`v = 10 \log(1 + f)` of the flux f. Ours are images :math:`u = v / h - 1`, in which
empty sky is -1; the half range h is ours, and such that samples reach up to 1. Their diffusion is variance preserving
with :math:`\beta = 1` and t from 0 to 10: :math:`\alpha = e^{-t/2}`, so that a noise level n of v is met at
:math:`t = \log(1 + n^2)`. The score s there makes the denoiser of v

.. math:: E[v_0 \mid v] = v + n^2 \alpha \, s(\alpha v, t)

Below n = 0.1 the network is asked at t = 0.01, the authors' own default; above t = 10, where nothing but noise is left,
v is scaled down to the noise of t = 10.

Left out are the networks for ZTF at 64 x 64, LSST and Roman, whose samples have another range or a sky that is not 0.
"""

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from scoreatlas.data.fetch import pip
from scoreatlas.errors import AtlasError
from scoreatlas.nn.mixer import MixerBlock, ScoreMixer
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.schedules import VP, Schedule

WHEEL = "galaxygrad-0.2.1-py3-none-any.whl"
EARLIEST, LATEST = 0.01, 10.0  # times at which the network is asked


@final
@dataclass(frozen=True)
class Source:
    """A network of the package: its file, the side of its images, half the range of v, and the sha256 of the file."""

    file: str
    side: int
    half: float
    sha256: str


SOURCES = {
    "hsc32": Source(
        "eqx_hsc_ScoreNet32.eqx", 32, 4.5, "cb926562fcdfcbd33952fea8b2394074e75cb652fb7824c4c809a5f89a0a6532"
    ),
    "hsc64": Source(
        "eqx_hsc_ScoreNet64.eqx", 64, 4.5, "4758114b1b77e4640ca7b834a976202aeb126fd7332ec07842af46d72c6b2e01"
    ),
    "ztf32": Source(
        "eqx_ZTF_ScoreNet32.eqx", 32, 4.5, "60b29e6b9b7b4baa4ddc84132d083991c9e1e2910f55f3e9ae16e65bf0df8f47"
    ),
    "quasar72": Source(
        "eqx_quasar_lens72.eqx", 72, 5.5, "b1574b390d2e450521f6234ff3f3288937c53237a76189883d61342c9d293c2f"
    ),
}


@final
class GalaxyDenoiser(nn.Module):
    """E[x_0 | x_0 + sigma eps = x] of images in [-1, 1] from a score of their logarithms.

    Args:
        net: the score network, called with v and times (b,).
        half: h, half the range of v.
    """

    def __init__(self, net: nn.Module, half: float) -> None:
        super().__init__()
        self.net, self.half_range = net, half

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Posterior mean (b, 1, h, w) for x (b, 1, h, w) and sigma of shape () or (b,)."""
        n = self.half_range * sigma.to(x).expand(x.shape[0])[:, None, None, None]
        v = self.half_range * (x + 1)
        most = n.new_tensor(LATEST).expm1().sqrt()
        v, n = v * (most / n).clamp_max(1), n.minimum(most)
        t = n.square().log1p().clamp_min(EARLIEST)
        alpha = (-t / 2).exp()
        v0 = v + n.square() * alpha * self.net(alpha * v, t.flatten())
        return v0 / self.half_range - 1


def fetch(downloads: Path) -> Path:
    """The wheel, 56 MB, downloaded by pip into a folder unless it lies there already."""
    downloads.mkdir(parents=True, exist_ok=True)
    return pip(downloads, WHEEL, "--only-binary", ":all:", "galaxygrad==0.2.1")


def load_galaxies(
    path: Path,
    name: str = "hsc32",
    *,
    schedule: Schedule | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> DiffusionPrior:
    """A prior of galaxies, (1, side, side).

    Args:
        path: the wheel, or a folder that holds the wheel or its unpacked files.
        name: a key of ``SOURCES``: the survey and the side of the images.
        schedule: of the prior; VP by default.
        device, dtype: of the network.

    Raises:
        AtlasError: another name, nothing at the path, or a file that is not that of version 0.2.1.
    """
    if name not in SOURCES:
        raise AtlasError(f"no galaxies named {name!r}; there are: {', '.join(SOURCES)}")
    source = SOURCES[name]
    raw = _read(Path(path), source.file)
    if hashlib.sha256(raw).hexdigest() != source.sha256:
        raise AtlasError(f"{source.file} in {path} is not the file of galaxygrad 0.2.1: its sha256 differs")
    side = source.side
    net = read_mixer(raw, (1, side, side)).to(device, dtype).eval().requires_grad_(False)
    return DiffusionPrior(GalaxyDenoiser(net, source.half), schedule or VP(), (1, side, side))


def read_mixer(raw: bytes, shape: tuple[int, int, int]) -> ScoreMixer:
    """A network from leaves that equinox wrote: arrays in ``.npy`` format, one after the other, in order of definition.

    Raises:
        AtlasError: there are too few or too many arrays, or one has another shape.
    """
    stream, leaves = io.BytesIO(raw), []
    try:
        while stream.tell() < len(raw):
            leaves.append(torch.from_numpy(np.asarray(np.load(stream, allow_pickle=False))))
    except (ValueError, EOFError) as error:
        raise AtlasError(f"leaf {len(leaves)} is not a .npy array without objects: {error}") from error
    blocks, rest = divmod(len(leaves) - 7, 12)
    if blocks < 1 or rest or leaves[0].ndim != 4:
        raise AtlasError(f"{len(leaves)} leaves are not those of a score mixer")
    net = ScoreMixer(shape, leaves[0].shape[-1], leaves[0].shape[0], leaves[4].shape[0], blocks, float(leaves[-1]))
    leaves[2] = leaves[2].transpose(0, 1).flip(2, 3)  # equinox correlates where torch convolves
    with torch.no_grad():
        for slot, leaf in zip(_slots(net), leaves[:-1], strict=True):
            if slot.numel() != leaf.numel():
                raise AtlasError(f"a leaf of shape {tuple(leaf.shape)} where {tuple(slot.shape)} is needed")
            slot.copy_(leaf.reshape(slot.shape))
    return net


def _slots(net: ScoreMixer) -> list[Tensor]:
    """Parameters in the order in which equinox has written them."""
    modules: list[nn.Module] = [net.into, net.out]
    for block in net.blocks:
        assert isinstance(block, MixerBlock)
        for mix in (block.mix_tokens, block.mix_features):
            modules += [mix.first, mix.second]
        modules += [block.norm_tokens, block.norm_features]
    return [p for m in [*modules, net.norm] for p in m.parameters()]  # weight, bias


def _read(path: Path, file: str) -> bytes:
    """A file of the package from the wheel, from a folder with the wheel, or from a folder with the file."""
    for folder in (path, path / "galaxygrad"):
        if (folder / file).is_file():
            return (folder / file).read_bytes()
    wheel = path / WHEEL if path.is_dir() else path
    if not wheel.is_file():
        raise AtlasError(f"no galaxygrad at {path}: get it with scoreatlas.priors.galaxies.fetch(folder)")
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(f"galaxygrad/{file}")
    except (zipfile.BadZipFile, KeyError) as error:
        raise AtlasError(f"{wheel} is not the wheel of galaxygrad 0.2.1: {error}") from error
