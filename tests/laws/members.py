"""The members of each family, to which the laws apply. A new solver or operator is added here once."""

import torch

from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Operator
from scoreatlas.operators.bicubic import Bicubic
from scoreatlas.operators.blur import Blur, gaussian_kernel, motion_kernel
from scoreatlas.operators.colourisation import Colourisation
from scoreatlas.operators.compressed import CompressedSensing
from scoreatlas.operators.dense import Dense
from scoreatlas.operators.family import RowwiseBlur
from scoreatlas.operators.identity import Identity
from scoreatlas.operators.inpainting import Inpainting, box_mask, random_mask
from scoreatlas.operators.masks import free_form_mask
from scoreatlas.operators.mri import CartesianMRI, MultiCoilMRI, cartesian_mask
from scoreatlas.operators.mri_real import PhasedMRI, RealMRI
from scoreatlas.operators.open_blur import OpenBlur
from scoreatlas.operators.radial import RadialMRI
from scoreatlas.operators.radon import Radon, even_angles
from scoreatlas.operators.superresolution import BlockAverage
from scoreatlas.operators.turbulence import Burst, Tilt
from scoreatlas.operators.turbulence_family import TurbulenceFamily
from scoreatlas.operators.varying_blur import VaryingBlur, radial_weights
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.priors.mixture import GaussianMixture
from scoreatlas.rng import Rng
from scoreatlas.schedules import VP
from scoreatlas.solvers.base import Solver
from scoreatlas.solvers.blind.base import BlindSolver
from scoreatlas.solvers.blind.bird import BIRD
from scoreatlas.solvers.blind.blind_dps import BlindDPS
from scoreatlas.solvers.blind.gdp import BlindGDP
from scoreatlas.solvers.guidance.dps import DPS
from scoreatlas.solvers.guidance.flowchef import FlowChef
from scoreatlas.solvers.guidance.gdp import GDP
from scoreatlas.solvers.guidance.lgd import LGD
from scoreatlas.solvers.guidance.mcg import MCG
from scoreatlas.solvers.guidance.mmps import MMPS
from scoreatlas.solvers.guidance.pigdm import PiGDM
from scoreatlas.solvers.guidance.tmpd import TMPD
from scoreatlas.solvers.particles.fps import FPS
from scoreatlas.solvers.particles.mcgdiff import MCGDiff
from scoreatlas.solvers.particles.tds import TDS
from scoreatlas.solvers.projection.ddnm import DDNM
from scoreatlas.solvers.projection.ddrm import DDRM
from scoreatlas.solvers.projection.dds import DDS
from scoreatlas.solvers.projection.ilvr import ILVR
from scoreatlas.solvers.projection.kadkhodaie import KadkhodaieSimoncelli
from scoreatlas.solvers.projection.mccann import McCann
from scoreatlas.solvers.projection.repaint import RePaint
from scoreatlas.solvers.projection.score_ald import ScoreALD
from scoreatlas.solvers.projection.score_sde import ScoreSDE
from scoreatlas.solvers.splitting.daps import DAPS
from scoreatlas.solvers.splitting.diffpir import DiffPIR
from scoreatlas.solvers.splitting.dpir import DPIR
from scoreatlas.solvers.splitting.pnp_admm import PnPADMM
from scoreatlas.solvers.splitting.pnp_dm import PnPDM
from scoreatlas.solvers.variational.graikos import Graikos
from scoreatlas.solvers.variational.prdeep import PrDeep
from scoreatlas.solvers.variational.red import RED
from scoreatlas.solvers.variational.red_diff import REDdiff

GRAY, COLOUR = (1, 8, 8), (3, 8, 8)
F64 = torch.float64


def rng(*seeds: int, rows: int = 1) -> Rng:
    return Rng(seeds, rows, dtype=F64)


def operators() -> dict[str, Operator]:
    coils = torch.view_as_complex(rng(7).normal(3, 8, 8, 2)[0])
    mask = cartesian_mask((8, 8), 2, 0.25, rng(8))
    return {
        "identity": Identity(COLOUR, F64),
        "box": Inpainting(box_mask(GRAY, 2, 3, 4, 3), F64),
        "random": Inpainting(random_mask(COLOUR, 0.4, rng(9)), F64),
        "x4": BlockAverage(COLOUR, 4, F64),
        "bicubic": Bicubic(COLOUR, 4, F64),
        "bicubic, oblong": Bicubic((1, 8, 12), 2, F64),
        "strokes": Inpainting(free_form_mask(COLOUR, 0.4, rng(15)), F64),
        "colour": Colourisation(COLOUR, F64),
        "gaussian blur": Blur(gaussian_kernel(5, 1.5), COLOUR, F64),
        "motion blur": Blur(motion_kernel(7, 5.0, 30.0), GRAY, F64),
        "even kernel": Blur(torch.tensor([[0.25, 0.75], [0.1, -0.4]]), GRAY, F64),
        "one kernel for all rows": RowwiseBlur(motion_kernel(7, 4.0, 70.0)[None], COLOUR),
        "compressed sensing": CompressedSensing(COLOUR, 0.3, rng(10), F64),
        "matrix": Dense(rng(14, rows=5).normal(64), GRAY),
        "single-coil MRI": CartesianMRI(mask, F64),
        "multi-coil MRI": MultiCoilMRI(coils, mask),
        "varying blur": VaryingBlur(rng(15, 16).normal(3, 3), radial_weights((8, 8), 2), COLOUR, F64),
        "valid blur": OpenBlur(gaussian_kernel(3, 1.0), GRAY, "valid", F64),
        "zero-padded blur": OpenBlur(motion_kernel(5, 3.0, 30.0), COLOUR, "zero", F64),
        "burst": Burst(0.5 * rng(19, 20).normal(2, 8, 8), torch.tensor(0.5, dtype=F64), COLOUR),
        "tilt": Tilt(rng(17).normal(2, 8, 8)[0], COLOUR),
        "turbulence": TurbulenceFamily(GRAY, modes=2).at(TurbulenceFamily(GRAY, 2).draw(0.5, 2.0, 0.4, rng(18))[0]),
        "real MRI": RealMRI(mask, F64),
        "phased MRI": PhasedMRI(coils, rng(15).normal(8, 8)[0], 0.7, mask),
        "radial MRI": RadialMRI((8, 8), 5, dtype=F64),
        "tomography": Radon(GRAY, even_angles(6), dtype=F64),
    }


def mixture(shape: tuple[int, ...] = GRAY) -> GaussianMixture:
    """Three components with smooth, different covariances."""
    n = shape[0] * shape[1] * shape[2]
    i = torch.arange(n, dtype=torch.float64)
    covariances = torch.stack([v * r ** (i[:, None] - i).abs() for v, r in ((0.2, 0.9), (0.5, 0.5), (0.1, 0.0))])
    means = 0.5 * rng(11, 12, 13).normal(*shape)
    return GaussianMixture(torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), means, covariances)


def prior(shape: tuple[int, ...] = GRAY) -> DiffusionPrior:
    return DiffusionPrior(mixture(shape), VP(), shape)


SOLVERS: list[Solver] = [
    # cg=4 here and below: in conjugate gradients that have converged, rounding grows, and sparse products round
    # differently for batches of different size and numbers of threads.
    DPS(steps=6, zeta=0.3), PiGDM(steps=6, cg=4), RePaint(steps=6, jump=2, resample=2), DDRM(steps=6),
    DDNM(steps=6, travel=2, repeat=2), DiffPIR(steps=6, cg=4), MCGDiff(steps=6, particles=8), TDS(steps=6, particles=8),
    PnPADMM(steps=6), DPIR(steps=6), RED(steps=6), Graikos(steps=6),
    ILVR(steps=6),
    PrDeep(steps=6),
    DDS(steps=6), ScoreSDE(steps=6), ScoreALD(steps=6), McCann(steps=6),
    KadkhodaieSimoncelli(steps=6),
    GDP(steps=6, scale=0.1),
    MCG(steps=6), TMPD(steps=6), TMPD(steps=6, covariance="full"), MMPS(steps=6), LGD(steps=6),
    FlowChef(steps=6, scale=0.01),
    DAPS(steps=6, ode=2), PnPDM(steps=6, inner=3, cg=4), FPS(steps=6, particles=8), REDdiff(steps=6, cg=4),
]  # fmt: skip

# Their operator is a family with unknown parameters; the laws of tests/laws/test_blind.py are theirs.
BLIND: list[BlindSolver] = [
    BlindDPS(steps=6),
    BIRD(iterations=4, steps=3),
    BlindGDP(steps=6, scale=3.0, inner=2),
]

# Their answer does not depend on the random numbers.
DETERMINISTIC: set[type[Solver]] = {
    PnPADMM,
    DPIR,
    RED,
    PrDeep,  # on linear operators; amplitudes have random starts
}

# How the law of each solver's answer is held, and where: its bias pinned, its exactness proved in a limit, or, for
# minimisers and fixed points, compared with the optimum. Some laws are in further files beside those named here.
HELD = {
    "DPS": ("pinned", "tests/laws/test_exactness.py"),
    "PiGDM": ("pinned", "tests/laws/test_exactness.py"),  # and its limit in tests/laws/test_solvers.py
    "RePaint": ("pinned", "tests/laws/test_exactness.py"),
    "DDRM": ("pinned", "tests/laws/test_exactness.py"),
    "DDNM": ("pinned", "tests/laws/test_exactness.py"),
    "DiffPIR": ("pinned", "tests/laws/test_exactness.py"),
    "PseudoInverse": ("pinned", "tests/laws/test_exactness.py"),
    "Wiener": ("pinned", "tests/laws/test_exactness.py"),
    "MCGDiff": ("proved", "tests/test_particles.py"),
    "TDS": ("proved", "tests/test_particles.py"),
    "PrimalDualTV": ("optimised", "tests/test_tv.py"),
    "PnPADMM": ("optimised", "tests/test_plug_and_play.py"),
    "DPIR": ("optimised", "tests/test_plug_and_play.py"),
    "RED": ("optimised", "tests/test_plug_and_play.py"),
    "Graikos": ("optimised", "tests/test_plug_and_play.py"),
    "ILVR": ("pinned", "tests/laws/test_exactness_sr.py"),
    "PrDeep": ("optimised", "tests/test_phase.py"),
    "ErrorReduction": ("optimised", "tests/test_phase.py"),
    "HIO": ("optimised", "tests/test_phase.py"),
    "DDS": ("pinned", "tests/laws/test_exactness_mrict.py"),
    "ScoreSDE": ("pinned", "tests/laws/test_exactness_mrict.py"),
    "ScoreALD": ("pinned", "tests/laws/test_exactness_mrict.py"),
    "McCann": ("pinned", "tests/laws/test_exactness_mrict.py"),
    "FilteredBackProjection": ("pinned", "tests/test_radon.py"),
    "KadkhodaieSimoncelli": ("pinned", "tests/laws/test_exactness_plug.py"),
    "GDP": ("pinned", "tests/laws/test_exactness_blind.py"),
    "BlindDPS": ("pinned", "tests/laws/test_exactness_blind.py"),
    "BIRD": ("optimised", "tests/laws/test_exactness_blind.py"),
    "BlindGDP": ("pinned", "tests/laws/test_exactness_blind.py"),
    "MCG": ("pinned", "tests/laws/test_exactness_guide.py"),
    "TMPD": ("proved", "tests/laws/test_exactness_guide.py"),  # covariance="full"; "rows" is pinned there
    "MMPS": ("proved", "tests/laws/test_exactness_guide.py"),
    "LGD": ("pinned", "tests/laws/test_exactness_guide.py"),
    "FlowChef": ("pinned", "tests/laws/test_exactness_guide.py"),
    "DAPS": ("pinned", "tests/laws/test_exactness_split.py"),  # and proved where its Gaussian is right
    "PnPDM": ("proved", "tests/laws/test_exactness_split.py"),
    "FPS": ("pinned", "tests/laws/test_exactness_split.py"),  # and proved for noise-free data
    "REDdiff": ("optimised", "tests/laws/test_exactness_split.py"),
}


def measurement(A: Operator, std: float = 0.1, rows: int = 3) -> Measurement:
    x = mixture(A.shape).sample(rng(*range(20, 20 + rows)))
    return Measurement(A(x) + std * rng(*range(30, 30 + rows)).normal_like(A(x)), A, Gaussian(std))
