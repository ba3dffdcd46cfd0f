"""The data files: refused when damaged, and known values when whole."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from scoreatlas import data
from scoreatlas.data import FILES, SPLITS, DataError
from scoreatlas.data.fetch import patient_of, sheet, split_of
from scoreatlas.operators.mri import MultiCoilMRI, as_complex


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with the manifest and one small data file."""
    for name in ("manifest.json", "digits_test.txt"):
        (tmp_path / name).write_bytes((FILES / name).read_bytes())
    return tmp_path


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_every_file_matches_the_manifest():
    assert {p.name for p in FILES.iterdir()} - {"manifest.json"} == set(data.manifest())
    for name in data.manifest():
        data.read(name)


def test_altered_file(copy):
    raw = bytearray((copy / "digits_test.txt").read_bytes())
    raw[0] ^= 1
    (copy / "digits_test.txt").write_bytes(raw)
    with pytest.raises(DataError) as error:
        data.labels("digits", "test", copy)
    message = one_line(error)
    assert str(copy / "digits_test.txt") in message and "sha256" in message and "estore" in message


def test_truncated_file(copy):
    raw = (copy / "digits_test.txt").read_bytes()
    (copy / "digits_test.txt").write_bytes(raw[:-7])
    with pytest.raises(DataError) as error:
        data.labels("digits", "test", copy)
    assert f"{len(raw) - 7} bytes, expected {len(raw)}" in one_line(error)


def test_missing_file(copy):
    with pytest.raises(DataError) as error:
        data.images("digits", "test", copy)
    assert "digits_test.png is missing" in one_line(error)


def test_unknown_name_and_split():
    with pytest.raises(DataError) as error:
        data.read("knee.png")
    assert "'knee.png'" in one_line(error) and "chest_train.png" in str(error.value)
    with pytest.raises(DataError) as error:
        data.digits("val")
    assert one_line(error) == "no split named 'val'; there are train, validation, test"


def test_data_page_names_every_source():
    page = Path(__file__).parents[1] / "DATA.md"
    text = page.read_text()
    for entry in data.manifest().values():
        for source in entry["source"].split("; "):
            package = re.fullmatch(r"(PyPI|npm|Debian) (\S+) ([\d.]+)(,.*)?", source)
            assert package is not None, source
            assert f"`{package[2]}` {package[3]}" in text
        assert entry["licence"] and entry["credit"]


def test_contact_sheet_is_read_as_it_was_written(tmp_path):
    cells = np.random.default_rng(0).integers(0, 256, (7, 4, 5), dtype=np.uint8)
    sheet(cells, 3).save(tmp_path / "toy_test.png")
    raw = (tmp_path / "toy_test.png").read_bytes()
    entry = {"shape": [7, 4, 5], "columns": 3, "bytes": len(raw), "sha256": data.hashlib.sha256(raw).hexdigest()}
    (tmp_path / "manifest.json").write_text(json.dumps({"toy_test.png": entry}))
    assert np.array_equal(data.images("toy", "test", tmp_path).numpy(), cells)


# First labels and the pixel sum 27525 of the first training digit are those of the published MNIST files.
FIRST = {"train": [5, 0, 4, 1, 9, 2, 1, 3, 1, 4], "test": [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]}
COUNTS = {
    "train": [2961, 3423, 2948, 3073, 2926, 2709, 2975, 3107, 2875, 3003],
    "validation": [188, 236, 198, 194, 188, 171, 197, 217, 194, 217],
    "test": [175, 234, 219, 207, 217, 179, 178, 205, 192, 194],
}


@pytest.mark.parametrize("split", SPLITS)
def test_digits(split):
    x, y = data.digits(split)
    assert x.shape == (len(y), 1, 32, 32) and x.dtype == torch.float32
    assert (x.min(), x.max()) == (-1, 1)
    assert torch.bincount(y).tolist() == COUNTS[split]
    if split in FIRST:
        assert y[:10].tolist() == FIRST[split]
    border = torch.ones(32, 32, dtype=torch.bool)
    border[2:30, 2:30] = False
    assert (x[:, 0, border] == -1).all()  # padding is background


def test_digits_are_mnist():
    raw = data.images("digits", "train")
    assert int(raw[0].sum()) == 27525
    # Full training set: mean 0.1307. Half of it, images with standard deviation 0.04 of their mean: 5 standard errors.
    assert abs(float(raw.double().mean()) / 255 - 0.1307) < 5 * 0.04 / 30_000**0.5


def test_labels_belong_to_their_images():
    """The nearest class mean errs on less than a quarter of the test digits; labels out of step would give 90 %."""
    x, y = data.digits("train")
    means = torch.stack([x[y == c].mean(0).flatten() for c in range(10)])
    xt, yt = data.digits("test")
    wrong = (torch.cdist(xt.flatten(1), means).argmin(1) != yt).double().mean()
    assert wrong < 0.25  # measured 0.22


def test_no_digit_is_in_two_splits():
    seen = [{image.tobytes() for image in data.images("digits", s).numpy()} for s in SPLITS]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])


def test_chest():
    patients = {}
    for split, n, pneumonia in (("train", 2563, 1305), ("validation", 271, 135), ("test", 332, 143)):
        x, y = data.chest(split)
        assert x.shape == (n, 1, 64, 64) and int(y.sum()) == pneumonia
        assert -1 <= x.min() and x.max() <= 1 and (x.max() - x.min()) > 1.9
        patients[split] = {line.split(",")[0] for line in data.labels("chest", split)}
        assert {split_of(p) for p in patients[split]} == {split}
    assert [len(patients[s]) for s in SPLITS] == [1978, 211, 268]
    assert len(set.union(*patients.values())) == 1978 + 211 + 268  # no patient in two splits


def test_no_radiograph_is_in_two_splits():
    """Nine pairs of files in the package are copies of each other; one pair has two patient ids."""
    seen = [{image.tobytes() for image in data.images("chest", s).numpy()} for s in SPLITS]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])


def test_patient_ids():
    assert patient_of("train/PNEUMONIA/person23_bacteria_78.jpeg") == "person23"
    assert patient_of("NORMAL2-IM-0246-0001-0002.jpeg") == "NORMAL2-IM-0246"
    assert patient_of("IM-0016-0001.jpeg") == "IM-0016"
    with pytest.raises(ValueError, match="no patient id"):
        patient_of("mask.png")


def test_brain_scale_and_precision():
    raw = load_file(FILES / "brain_kspace.safetensors")
    assert {k: (v.shape, v.dtype) for k, v in raw.items()} == {
        k: ((8, 224, 224, 2), np.float16) for k in ("kspace", "coils")
    }
    largest = np.abs(np.fft.ifft2(raw["kspace"].astype(np.float64) @ [1, 1j], norm="ortho")).max()
    # Each number of k-space is off by at most 2^-11 of itself; errors of 50,176 of them add as a root of squares.
    assert abs(largest - 1) < 2**-11


def brain_image() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Coil images, their combination sum_c conj(S_c) F^-1 k_c, and where there is signal (10 % of the maximum)."""
    kspace, coils = data.brain()
    images = torch.fft.ifft2(kspace, norm="ortho")
    combined = (coils.conj() * images).sum(0)
    return images, combined, combined.abs() > 0.1 * combined.abs().max()


def test_brain_adjoint_is_the_combined_image():
    """The operator's adjoint of full data against numpy in double precision, from the file's own numbers."""
    raw = {k: v.astype(np.float64) @ [1, 1j] for k, v in load_file(FILES / "brain_kspace.safetensors").items()}
    want = (raw["coils"].conj() * np.fft.ifft2(raw["kspace"], norm="ortho")).sum(0)
    kspace, coils = data.brain()
    A = MultiCoilMRI(coils, torch.ones(224, 224, dtype=torch.bool))
    got = as_complex(A.adjoint(kspace.flatten(1)[None]))[0].numpy()
    assert np.abs(got - want).max() < 1e-5 * np.abs(want).max()  # single precision, 16 butterflies


def test_brain_sensitivities():
    """Unit sum of squares before compression to 8 coils, which can only take away; measured 0.908 ... 0.9998."""
    _, _, signal = brain_image()
    squares = data.brain().coils.abs().square().sum(0)
    assert squares.max() <= 1 + 2**-10  # half precision
    assert squares[signal].min() > 0.9
    assert squares[signal].mean() > 0.975  # measured 0.981


def test_brain_data_fit_their_model_to_the_noise():
    """k_c = F S_c x + noise: what the best x leaves is no more than the noise seen outside the head.

    Least squares over 8 coils leaves 7/8 of the noise energy where there is signal.
    """
    images, combined, signal = brain_image()
    coils = data.brain().coils
    x = combined / coils.abs().square().sum(0)
    residual = (images - coils * x)[:, signal].abs().square().mean().sqrt()
    outside = combined.abs() < 0.03 * combined.abs().max()
    noise = images[:, outside].abs().square().mean().sqrt()
    assert 0.7 < float(residual / noise) < 1.1  # measured 0.90; sqrt(7/8) = 0.94
