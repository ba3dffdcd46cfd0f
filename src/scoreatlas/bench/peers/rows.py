"""The rows of the comparison: which method of which library, with which settings, and whose they are."""

from typing import Any, NamedTuple

from scoreatlas import peers
from scoreatlas.errors import AtlasError
from scoreatlas.samplers.ancestral import DDIM, DDPM
from scoreatlas.samplers.ode import Heun, Uniform
from scoreatlas.solvers.base import Solver
from scoreatlas.solvers.classical.pseudo_inverse import PseudoInverse
from scoreatlas.solvers.guidance.dps import DPS
from scoreatlas.solvers.guidance.pigdm import PiGDM
from scoreatlas.solvers.projection.ddnm import DDNM
from scoreatlas.solvers.projection.ddrm import DDRM
from scoreatlas.solvers.splitting.diffpir import DiffPIR

OURS: dict[str, type[Solver[Any, Any]]] = {
    c.__name__: c for c in (DPS, PiGDM, DDRM, DDNM, DiffPIR, PseudoInverse, DDPM, DDIM, Heun)
}
SAMPLERS = ("DDPM", "DDIM", "Heun")


class Row(NamedTuple):
    """One line of the comparison.

    Attributes:
        method: what it is called, whoever wrote it.
        library: "ours", or whose.
        name: of the class, ours or a wrapper.
        fields: what is set, other than the number of steps.
        source: whose settings: default (of the library), documented (by the library), paper, code
            (official), ours, or tuned (on validation images).
        long: steps of the longer run on the Gaussian; 0 for none. Samplers have none.
        tune: a field and the values among which validation images choose.
        note: what a reader should know, else empty.
    """

    method: str
    library: str
    name: str
    fields: dict[str, Any] = {}
    source: str = "default"
    long: int = 1000
    tune: tuple[str, tuple[float, ...]] | None = None
    note: str = ""

    @property
    def sampler(self) -> bool:
        """Whether it takes no data."""
        return self.method in SAMPLERS

    @property
    def iterative(self) -> bool:
        """Whether it has steps."""
        return self.name != "PseudoInverse"

    @property
    def module(self) -> str:
        """Where the class is, whether or not it can be imported."""
        return OURS[self.name].__module__ if self.library == "ours" else f"{peers.__name__}.{self.library}"

    @property
    def asked(self) -> dict[str, Any]:
        """The row as JSON values: a record is stale if it differs."""
        fields = {k: repr(v) for k, v in self.fields.items()}
        return self._asdict() | {"fields": fields, "tune": self.tune and [self.tune[0], list(self.tune[1])]}

    def build(self, **more: Any) -> Solver[Any, Any]:
        """The solver.

        Raises:
            AtlasError: its library is not installed, or not in the version that its wrapper needs.
        """
        if self.library != "ours" and (lacking := peers.lacking()):
            raise AtlasError(f"not installed: {', '.join(lacking)}; pip install 'scoreatlas[peers]'")
        return (OURS if self.library == "ours" else peers.available())[self.name](**self.fields, **more)


ROWS = (
    Row("pseudo-inverse", "ours", "PseudoInverse", source="paper", long=0),
    Row("DPS", "ours", "DPS", source="paper"),
    Row("DPS", "ours", "DPS", source="tuned", long=0, tune=("zeta", (1.0, 3.0, 10.0))),
    Row("DPS", "deepinv", "DeepinvDPS"),
    Row("DPS", "deepinv", "DeepinvDPS", {"guidance": "annealed"}, "documented", note="knows the noise level"),
    Row("DPS", "deepinv", "DeepinvDPS", source="tuned", long=0, tune=("weight", (100.0, 300.0, 1000.0))),
    Row("DPS", "azula", "AzulaDPS", note="norm over the batch"),
    Row("DPS", "azula", "AzulaDPS", {}, "tuned", 0, ("zeta", (3.0, 10.0, 30.0)), "norm over the batch"),
    Row("PiGDM", "ours", "PiGDM", source="paper"),
    Row("PiGDM", "ours", "PiGDM", {"prior_std": 0.5}, "ours", note="told the standard deviation of a pixel"),
    Row("PiGDM", "deepinv", "DeepinvPiGDM"),
    Row("PiGDM", "azula", "AzulaPGDM", note="takes no noise level"),
    Row("MMPS", "deepinv", "DeepinvMMPS"),
    Row("MMPS", "azula", "AzulaMMPS"),
    Row("TMPD", "azula", "AzulaTMPD"),
    Row("ALD", "deepinv", "DeepinvALD"),
    Row("ILVR", "deepinv", "DeepinvILVR"),
    Row("DDRM", "ours", "DDRM", source="paper", long=100),
    Row("DDRM", "deepinv", "DeepinvDDRM", long=100, note="noise divided by the square root of 2"),
    Row("DDNM+", "ours", "DDNM", source="code", long=100),
    Row("DiffPIR", "ours", "DiffPIR", source="paper", long=100),
    Row("DiffPIR", "ours", "DiffPIR", {"zeta": 1.0}, "code", 100, note="the code's setting for inpainting"),
    Row("DiffPIR", "deepinv", "DeepinvDiffPIR", long=100),
    Row("DiffPIR", "deepinv", "DeepinvDiffPIR", {"zeta": 1.0}, "documented", 100, note="the default, say its pages"),
    Row("DiffPIR", "azula", "AzulaDiffPIR", long=100),
    Row("DDPM", "ours", "DDPM", long=0),
    Row("DDPM", "diffusers", "DiffusersDDPM", long=0),
    Row("DDIM", "ours", "DDIM", long=0),
    Row("DDIM", "diffusers", "DiffusersDDIM", long=0),
    Row("Heun", "ours", "Heun", {"grid": Uniform()}, long=0),
    Row("Heun", "diffusers", "DiffusersHeun", long=0),
)
