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


def test_own_darks_win_and_borrowed_flats_that_do_not_fit_them_give_way() -> None:
    borrowed = DarkFlat.borrowed(lender())
    borrowed.add_darks(frames(2000))
    assert (borrowed.ready, borrowed.darks) == (False, 2)
    borrowed.add_flats(frames(4000))
    assert attenuation(frames(3000)[0], borrowed.reference_at())[0] == pytest.approx(np.log(2.0), abs=1e-6)


def test_own_flats_below_borrowed_darks_win_and_these_give_way() -> None:
    bright = DarkFlat(3, 4)
    bright.add_darks(frames(2000))
    bright.add_flats(frames(4000))
    borrowed = DarkFlat.borrowed(bright)
    borrowed.add_flats(frames(1000))
    assert (borrowed.flats, borrowed.flats_are_borrowed, borrowed.assumes_no_dark) == (2, False, True)
    assert attenuation(frames(500)[0], borrowed.reference_at())[0] == pytest.approx(np.log(2.0), abs=1e-6)


@pytest.mark.parametrize("unasked", [False, True])
def test_darks_of_a_run_that_was_not_named_go_when_own_flats_come(unasked: bool) -> None:
    """They are then told to be missing, as they are."""
    dark_flat = DarkFlat(3, 4)
    dark_flat.borrow(lender(), unasked=unasked)
    assert dark_flat.flats_are_borrowed
    dark_flat.add_flats(frames(2010))
    assert dark_flat.assumes_no_dark == unasked


def test_what_a_run_has_of_its_own_stays_when_others_are_borrowed_late() -> None:
    dark_flat = DarkFlat(3, 4)
    dark_flat.add_flats(frames(2010))
    dark_flat.borrow(lender())
    assert (dark_flat.flats, dark_flat.flats_are_borrowed, dark_flat.darks) == (2, False, 2)
    assert attenuation(frames(1010)[0], dark_flat.reference_at())[0] == pytest.approx(np.log(2.0), abs=1e-6)
    dark_flat = DarkFlat(3, 4)
    dark_flat.add_darks(frames(1500))
    with pytest.raises(ValueError, match="pixels are dead"):
        dark_flat.borrow(lender())
    assert (dark_flat.ready, dark_flat.darks) == (False, 2)


def test_flats_of_another_detector_size_are_refused() -> None:
    geometry = ParallelGeometry(n_u=5, n_v=3, pixel_mm=1.0)
    with pytest.raises(ValueError, match="take them again"):
        FilteredBackprojection(geometry, n_projections=8, dark_flat=lender())
