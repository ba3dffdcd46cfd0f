"""Figures for a page with two themes: one inline SVG whose ink is the page's own, and a PNG beside it.

Draw with :func:`subplots` or :func:`image_grid`, then :func:`show`. Everything drawn in :data:`INK` follows
the text colour of the page; :data:`COLOURS` are seen on white and on near-black alike. Output is a function of
what was drawn: no date, no random identifier.
"""

import base64
import hashlib
import html
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

INK = "#0a0b0c"  # stands for the page's text colour: becomes currentColor in the SVG, stays near-black in the PNG
BLUE, ORANGE, GREEN, PURPLE, RED, GREY = "#3a85c9", "#d67a1f", "#2f9a6b", "#9a6fcf", "#d4575a", "#8a8f98"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, RED, GREY)  # each at least 3 : 1 against white and against #121212

_FAMILY = "var(--pst-font-family-base, system-ui, sans-serif)"


def _style() -> None:
    import matplotlib as mpl
    from matplotlib.rcsetup import cycler

    mpl.rcParams.update(
        {
            "axes.edgecolor": INK,
            "axes.facecolor": "none",
            "axes.grid": True,
            "axes.labelcolor": INK,
            "axes.labelsize": 9,
            "axes.linewidth": 0.6,
            "axes.prop_cycle": cycler(color=COLOURS),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlesize": 9.5,
            "figure.constrained_layout.use": True,
            "figure.facecolor": "none",
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans"],
            "font.size": 9,
            "grid.alpha": 0.15,
            "grid.color": INK,
            "grid.linewidth": 0.6,
            "image.cmap": "gray",
            "image.interpolation": "none",  # raw pixels in the SVG: small and crisp
            "legend.fontsize": 8.5,
            "legend.frameon": False,
            "lines.linewidth": 1.6,
            "lines.markersize": 4,
            "svg.fonttype": "none",  # text stays text: selectable, and in the page's font
            "svg.hashsalt": "score-atlas",
            "text.color": INK,
            "xtick.color": INK,
            "xtick.labelsize": 8.5,
            "ytick.color": INK,
            "ytick.labelsize": 8.5,
        }
    )


def subplots(rows: int = 1, columns: int = 1, width: float = 7.0, height: float = 2.8) -> "tuple[Figure, np.ndarray]":
    """An empty figure in the house style and its axes, always an array (rows, columns).

    Args:
        rows, columns: grid of axes.
        width, height: in inches; 7 fills the text column.
    """
    from matplotlib.figure import Figure

    _style()
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots(rows, columns, squeeze=False)


def image_grid(
    images: "Sequence[Sequence[Tensor]]",
    columns: Sequence[str] = (),
    rows: Sequence[str] = (),
    captions: Sequence[Sequence[str]] = (),
    limits: tuple[float, float] = (-1.0, 1.0),
    size: float = 1.3,
) -> "Figure":
    """A grid of images, grey or in colour, shown without interpolation.

    Args:
        images: one list per row of tensors that are (h, w) or (3, h, w) but for axes of length 1.
        columns: titles above the columns.
        rows: labels to the left of the rows.
        captions: one short line under each image, laid out like ``images``.
        limits: values shown black and white; the data range by default.
        size: width of one image in inches.
    """
    h, w = images[0][0].shape[-2:]
    under = 0.2 if captions else 0.04
    n, m = len(images), len(images[0])
    width, height = m * size + (0.25 if rows else 0), n * (size * h / w + under) + (0.25 if columns else 0)
    figure, axes = subplots(n, m, width, height)
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    for i, j in np.ndindex(n, m):
        ax: Any = axes[i, j]
        ax.imshow(_pixels(images[i][j], limits), vmin=limits[0], vmax=limits[1])
        ax.grid(False)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        if i == 0 and columns:
            ax.set_title(columns[j])
        if j == 0 and rows:
            ax.set_ylabel(rows[i])
        if captions:
            ax.set_xlabel(captions[i][j], fontsize=8, labelpad=2)
    return figure


def _pixels(image: "Tensor", limits: tuple[float, float]) -> np.ndarray:
    """(h, w) as it is, or (h, w, 3) with the limits mapped to 0 and 1."""
    h, w = image.shape[-2:]
    planes = image.detach().cpu().reshape(-1, h, w)
    if len(planes) == 1:
        return planes[0].numpy()
    low, high = limits
    return ((planes - low) / (high - low)).clamp(0, 1).permute(1, 2, 0).numpy()


def svg(figure: "Figure", alt: str) -> str:
    """The figure as an ``<svg>`` element to be put into a page, with text in the page's colour and font.

    Identifiers get a prefix of their own, so that several figures can share a page.

    Args:
        figure: what to draw.
        alt: what a reader who cannot see the figure should know.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    drawing = buffer.getvalue()
    key = "f" + hashlib.sha256(drawing.encode()).hexdigest()[:8]
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing[drawing.index("<svg") :], flags=re.S)
    drawing = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{key}-", drawing)
    drawing = drawing.replace("*{", f"#{key} *{{", 1)  # matplotlib's rule for line joins, kept to this figure
    drawing = re.sub(r"'DejaVu Sans[^;\"]*", _FAMILY, drawing).replace(INK, "currentColor")
    drawing = re.sub(r'base64,\s*([^"]*)"', lambda found: f'base64,{_smaller(found[1])}"', drawing)
    width = figure.get_size_inches()[0] * 96  # CSS pixels
    style = f"width:100%;max-width:{width:.0f}px;height:auto"
    size = f'id="{key}" role="img" aria-label="{html.escape(alt)}" style="{style}"'
    return re.sub(r'(<svg [^>]*?)width="[^"]*" height="[^"]*"', lambda found: found[1] + size, drawing, count=1)


def _smaller(encoded: str) -> str:
    """A grey, opaque picture, which matplotlib stores in four channels, in one; any other as it is."""
    picture = Image.open(io.BytesIO(base64.b64decode(encoded)))
    pixels = np.asarray(picture.convert("RGBA")).astype(int)
    if not ((pixels[..., :3] == pixels[..., :1]).all() and (pixels[..., 3] == 255).all()):
        return encoded
    buffer = io.BytesIO()
    picture.convert("L").save(buffer, format="png", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def png(figure: "Figure", dpi: int = 160) -> bytes:
    """The figure as a PNG on white, for print and for notebooks outside the book."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def show(figure: "Figure", alt: str) -> None:
    """Put the figure into the notebook: inline SVG for the site, PNG for everything else.

    Args:
        figure: what to show.
        alt: what a reader who cannot see the figure should know.
    """
    from IPython.display import display

    bundle = {
        "text/html": svg(figure, alt),
        "image/png": base64.b64encode(png(figure)).decode(),
        "text/plain": alt,
    }
    display(bundle, raw=True)
