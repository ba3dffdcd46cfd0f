"""What the columns of a table are called, and what is good."""

from typing import NamedTuple


class Label(NamedTuple):
    """Words and aim of a metric.

    Attributes:
        text: for a column head.
        target: the best value; infinity where more is better.
    """

    text: str
    target: float


INFINITY = float("inf")
LABELS = {
    "sliced_w2": Label("sliced W2", 0),
    "sliced_w1": Label("sliced W1", 0),
    "bias_observed": Label("bias seen", 0),
    "bias_unobserved": Label("bias unseen", 0),
    "spread_observed": Label("spread seen", 1),
    "spread_unobserved": Label("spread unseen", 1),
    "w2_mean": Label("W2 of means", 0),
    "w2_covariance": Label("W2 of covariances", 0),
    "mode_weights": Label("mode weights error", 0),
    "coverage_50": Label("50 % coverage", 0.5),
    "coverage_90": Label("90 % coverage", 0.9),
    "off_data": Label("distance to data", 0),
    "sbc_observed": Label("rank gap seen", 0),
    "sbc_unobserved": Label("rank gap unseen", 0),
    "sbc_likelihood": Label("rank gap likelihood", 0),
    "psnr": Label("PSNR (dB)", INFINITY),
    "ssim": Label("SSIM", INFINITY),
    "lpips": Label("LPIPS", 0),
    "range_coverage": Label("coverage of the range, relative", 1),
    "residual": Label("residual (sigma_y)", 1),
    "diversity": Label("diversity", float("nan")),  # neither more nor less is better in itself
    # Of one network call; setup is that of a run.
    "operations": Label("operations", 0),
    "views": Label("views", 0),
    "syncs": Label("syncs", 0),
    "ms": Label("ms", 0),
    "setup": Label("setup", 0),
    "difference": Label("difference", 0),
    "cost.denoiser_calls": Label("network calls", 0),
    "cost.vjps": Label("vjps", 0),
    "cost.operator_calls": Label("operator calls", 0),
    "cost.seconds": Label("seconds", 0),
    "cost.peak_mb": Label("peak MB", 0),
}
