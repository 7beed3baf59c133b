"""Darks and flats of another run: used until this run brings its own."""

import numpy as np
import pytest

from bluesky_jit.tomo.corrections.darkflat import DarkFlat
from bluesky_jit.tomo.corrections.transmission import attenuation
from bluesky_jit.tomo.geometry import ParallelGeometry
from bluesky_jit.tomo.live import FilteredBackprojection


def frames(value: int, n: int = 2) -> np.ndarray:
    return np.full((n, 3, 4), value, dtype=np.uint16)


def lender() -> DarkFlat:
    dark_flat = DarkFlat(3, 4)
    dark_flat.add_darks(frames(10))
    dark_flat.add_flats(frames(1010))
    return dark_flat


def test_borrowed_flats_correct_as_they_did() -> None:
    expected, _ = attenuation(frames(510)[0], lender().reference_at())
    assert attenuation(frames(510)[0], DarkFlat.borrowed(lender()).reference_at())[0] == pytest.approx(expected)


def test_own_flats_take_the_place_of_borrowed_ones() -> None:
    borrowed, kept = DarkFlat.borrowed(lender()), lender()
    borrowed.add_flats(frames(2010))
    assert (borrowed.flats, borrowed.flats_are_borrowed) == (2, False)
    assert attenuation(frames(1010)[0], borrowed.reference_at())[0] == pytest.approx(np.log(2.0), abs=1e-6)
    assert attenuation(frames(510)[0], kept.reference_at())[0] == pytest.approx(np.log(2.0), abs=1e-6)


def test_flats_of_another_detector_size_are_refused() -> None:
    geometry = ParallelGeometry(n_u=5, n_v=3, pixel_mm=1.0)
    with pytest.raises(ValueError, match="take them again"):
        FilteredBackprojection(geometry, n_projections=8, dark_flat=lender())
