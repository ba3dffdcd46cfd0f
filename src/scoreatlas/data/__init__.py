"""Small real data sets, in the repository, checked on loading.

Images come as float tensors (n, c, h, w) in [-1, 1]. Sources, licences and credits: ``DATA.md``.
"""

import hashlib
import json
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load
from torch import Tensor

from scoreatlas.errors import AtlasError

FILES = Path(__file__).parent / "files"
Split = Literal["train", "validation", "test"]
SPLITS = ("train", "validation", "test")


class DataError(AtlasError):
    """A data file is missing, altered or unknown; the message says which and what to do."""


class Brain(NamedTuple):
    """One slice of multi-coil Cartesian k-space.

    Attributes:
        kspace: (coils, h, w) complex64, orthonormal FFT convention, zero frequency at index 0;
            scaled so that the largest coil image magnitude is 1.
        coils: (coils, h, w) complex64 sensitivities. Their sum of squares was 1 before compression to 8
            coils; now it is 0.91 to 1 where there is signal, and less outside the head.
    """

    kspace: Tensor
    coils: Tensor


@cache
def manifest(files: Path = FILES) -> dict[str, dict]:
    """What each file is: source package, licence, credit, shape, sha256."""
    return json.loads((files / "manifest.json").read_text())


def read(name: str, files: Path = FILES) -> bytes:
    """Bytes of a data file, after its sha256 has been compared with the manifest.

    Raises:
        DataError: the name is unknown, or the file is missing, truncated or altered.
    """
    if name not in manifest(files):
        raise DataError(f"no data file named {name!r}; known: {', '.join(sorted(manifest(files)))}")
    path, want = files / name, manifest(files)[name]
    if not path.exists():
        raise DataError(f"{path} is missing; restore it from the repository or run `scoreatlas data fetch`")
    raw = path.read_bytes()
    if len(raw) != want["bytes"]:
        size = f"{len(raw)} bytes, expected {want['bytes']}"
        raise DataError(f"{path} has {size}: truncated? Restore it from the repository")
    if hashlib.sha256(raw).hexdigest() != want["sha256"]:
        raise DataError(f"{path} does not match its sha256 in manifest.json: altered? Restore it from the repository")
    return raw


def images(name: str, split: Split, files: Path = FILES) -> Tensor:
    """uint8 images (n, h, w), or (n, h, w, 3) in colour, of the contact sheet ``{name}_{split}.png``."""
    if split not in SPLITS:
        raise DataError(f"no split named {split!r}; there are {', '.join(SPLITS)}")
    file = f"{name}_{split}.png"
    pixels = np.asarray(Image.open(BytesIO(read(file, files))))
    n, h, w = manifest(files)[file]["shape"][:3]
    columns = manifest(files)[file]["columns"]
    colour = pixels.shape[2:]  # () or (3,)
    cells = pixels.reshape(-1, h, columns, w, *colour).swapaxes(1, 2).reshape(-1, h, w, *colour)
    return torch.from_numpy(cells[:n].copy())


def labels(name: str, split: Split, files: Path = FILES) -> list[str]:
    """One line of ``{name}_{split}.txt`` per image."""
    return read(f"{name}_{split}.txt", files).decode().split()


def digits(split: Split = "train") -> tuple[Tensor, Tensor]:
    """MNIST padded to 32 x 32: images (n, 1, 32, 32) in [-1, 1] and classes (n,) in 0 ... 9."""
    x = torch.nn.functional.pad(images("digits", split), (2, 2, 2, 2))[:, None]
    return x.float() / 127.5 - 1, torch.tensor([int(v) for v in labels("digits", split)])


def chest(split: Split = "train") -> tuple[Tensor, Tensor]:
    """Chest radiographs (n, 1, 64, 64) in [-1, 1] and labels (n,): 0 normal, 1 pneumonia.

    No patient is in two splits.
    """
    x = images("chest", split)[:, None]
    y = torch.tensor([line.endswith("pneumonia") for line in labels("chest", split)]).long()
    return x.float() / 127.5 - 1, y


def patches(split: Split = "train") -> Tensor:
    """Photographs (n, 3, h, w) in [-1, 1]: 64 x 64 for validation and test, 80 x 80 for training, to be cropped."""
    return images("patches", split).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1


def mri(split: Split = "train") -> tuple[Tensor, list[str]]:
    """Axial T1-weighted head slices (n, 1, 128, 128) in [-1, 1], pixels of 1.75 mm, and the person of each.

    -1 is no signal, 1 is a little above white matter; fat is clipped there. No person is in two splits.
    """
    return images("mri", split)[:, None].float() / 127.5 - 1, labels("mri", split)


def ct(split: Split = "train") -> tuple[Tensor, list[str]]:
    """Axial CT slices of trunks (n, 1, 128, 128), pixels of 3.4375 mm, and the person of each.

    -1 ... 1 is -1000 ... 1000 HU, clipped there: air is -1, water 0. No person is in two splits.
    """
    return images("ct", split)[:, None].float() / 127.5 - 1, labels("ct", split)


def tooth() -> tuple[Tensor, Tensor]:
    """A real parallel-beam sinogram of a tooth: line integrals (181, 640), float32, and angles (181,) in degrees.

    Attenuation times length in units of one detector bin. The axis of rotation is at bin 296.
    """
    stored = np.load(BytesIO(read("tooth.npz")))
    return torch.from_numpy(stored["sinogram"]).float(), torch.from_numpy(stored["degrees"])


def brain() -> Brain:
    """The multi-coil brain slice."""
    tensors = load(read("brain_kspace.safetensors"))
    kspace, coils = (torch.view_as_complex(tensors[k].float()) for k in ("kspace", "coils"))
    return Brain(kspace, coils)
