"""The colours of the owners: told apart without colour vision, legible under dark ink."""

import re
from itertools import combinations

import numpy as np
import pytest

from kvpaged.figures.language import COLOURS, NEUTRAL, owner_colour, owner_name
from kvpaged.figures.picture import stylesheet

[INK] = re.findall(r"\.o\{fill:(#\w+)\}", stylesheet("picture.css"))  # of what is written on an owner's colour

# What an eye without one kind of cone sees, in linear RGB: Viénot, Brettel and Mollon (1999).
TO_CONES = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
WITHOUT = {
    "protanopia": np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]]),
    "deuteranopia": np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]]),
    "nothing": np.eye(3),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour: str) -> np.ndarray:
    """Return the linear red, green and blue, from 0 to 1, of "#rrggbb" or "#rgb"."""
    digits = colour.lstrip("#")
    digits = digits if len(digits) == 6 else "".join(digit * 2 for digit in digits)
    srgb = np.array([int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)])
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def seen(colour: str, lacking: str) -> np.ndarray:
    """Return the CIELAB coordinates of what is seen of a colour by an eye that lacks something."""
    rgb = np.linalg.inv(TO_CONES) @ WITHOUT[lacking] @ TO_CONES @ linear(colour)
    ratios = TO_XYZ @ np.clip(rgb, 0, 1) / TO_XYZ.sum(axis=1)
    x, y, z = np.where(ratios > 0.008856, np.cbrt(ratios), 7.787 * ratios + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of WCAG 2, from 1 to 21."""
    low, high = sorted(float(TO_XYZ[1] @ linear(colour)) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def nearest(colours: list[str], lacking: str) -> float:
    return min(float(np.linalg.norm(seen(a, lacking) - seen(b, lacking))) for a, b in combinations(colours, 2))


def test_the_measures_are_right_where_the_answer_is_known() -> None:
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    assert seen("#fff", "nothing") == pytest.approx([100, 0, 0], abs=0.1)
    red, green = seen("#ff0000", "deuteranopia"), seen("#889900", "deuteranopia")
    assert np.linalg.norm((red - green)[1:]) < 20 < np.linalg.norm(seen("#f00", "nothing") - seen("#890", "nothing"))


@pytest.mark.parametrize("lacking", WITHOUT)
def test_owners_are_told_apart_by_every_eye(lacking: str) -> None:
    # Two colours side by side are told apart from a distance of 2.3 on.
    assert nearest([*COLOURS, NEUTRAL], lacking) > 12


@pytest.mark.parametrize("colour", [*COLOURS, NEUTRAL])
def test_ink_is_legible_on_every_owner(colour: str) -> None:
    assert contrast(colour, INK) > 4.5


@pytest.mark.parametrize("colour", [*COLOURS, NEUTRAL])
def test_every_owner_stands_out_in_the_dark(colour: str) -> None:
    assert contrast(colour, "#121212") > 3  # in the light, the outline of its page does: colour is not alone


def test_an_owner_keeps_letter_and_colour_and_ninths_begin_again() -> None:
    assert [owner_name(owner) for owner in (0, 1, 25, 26, 54)] == ["A", "B", "Z", "AA", "BC"]
    assert all(owner_colour(owner) == owner_colour(owner_name(owner)) for owner in range(100))
    assert owner_colour(8) == owner_colour(0) != owner_colour(1)
