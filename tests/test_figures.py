"""What a figure promises the page: the page's ink, no date, identifiers of its own, grey pictures kept grey."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from scoreatlas import figures


def drawing(slope: float = 1.0) -> str:
    figure, axes = figures.subplots()
    axes[0, 0].plot([0, 1], [0, slope], color=figures.INK)
    axes[0, 0].set(xlabel="λ", title="a title")
    return figures.svg(figure, 'says "what" is shown')


def test_same_drawing_same_bytes_and_no_date() -> None:
    assert drawing() == drawing()
    assert "<metadata" not in drawing()


def test_ink_and_font_are_the_pages() -> None:
    text = drawing()
    assert figures.INK not in text
    assert "currentColor" in text
    assert "DejaVu" not in text
    assert 'aria-label="says &quot;what&quot; is shown"' in text


def test_two_figures_share_no_identifier_and_no_reference_dangles() -> None:
    first, second = drawing(), drawing(2.0)
    ids = [set(re.findall(r' id="([^"]+)"', text)) for text in (first, second)]
    assert not ids[0] & ids[1]
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', first))
    assert {a or b for a, b in used} <= ids[0]


def test_a_picture_keeps_its_pixels_in_one_channel() -> None:
    x = torch.linspace(-1, 1, 256).reshape(1, 16, 16)
    text = figures.svg(figures.image_grid([[x]]), "a ramp")
    picture = Image.open(io.BytesIO(base64.b64decode(re.search(r'base64,([^"]+)"', text)[1])))
    assert picture.mode == "L"
    assert np.abs(np.asarray(picture).astype(int) - np.arange(256).reshape(16, 16)).max() <= 1  # matplotlib's rounding


@pytest.mark.parametrize("paper", ["#ffffff", "#121212"])
def test_colours_are_seen_on_both_papers(paper: str) -> None:
    """WCAG 2 asks for a contrast of 3 : 1 for graphical objects."""

    def luminance(colour: str) -> float:
        c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        return float(np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])

    for colour in figures.COLOURS:
        high, low = sorted([luminance(colour), luminance(paper)], reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 3, colour


def test_a_colour_image_is_drawn_in_its_colours():
    x = torch.tensor([1.0, -1.0, 0.0])[:, None, None].expand(3, 2, 2)[None]
    grid = figures.image_grid([[x, x[:, :1]]])
    colour, grey = (ax.images[0].get_array() for ax in grid.axes)
    assert colour.shape == (2, 2, 3) and colour[0, 0].tolist() == [1.0, 0.0, 0.5]
    assert grey.shape == (2, 2)
