"""The beam is followed by columns of air; a sample that reaches into them is noticed."""

from dataclasses import replace

import numpy as np
import pytest

from bluesky_jit.tomo.corrections.air import Side, air_side, beam_of, level_out, require_columns
from bluesky_jit.tomo.geometry import ParallelGeometry


def sample(shape=(60, 100)):
    v, u = np.mgrid[0 : shape[0], 0 : shape[1]]
    return np.exp(-np.where(abs(u - 50) < 30, 1.0 + 0.005 * v, 0.0)).astype(np.float32)


def test_a_beam_that_changes_and_tilts_is_levelled_out():
    truth = sample()
    drift = np.linspace(1.03, 0.99, 100).astype(np.float32)
    frame = truth * drift
    beam = beam_of(frame, 10)
    assert (beam.left, beam.right) == (pytest.approx(drift[:10].mean()), pytest.approx(drift[-10:].mean()))
    assert not beam.obstructed
    level_out(frame, beam, 10)
    np.testing.assert_allclose(frame, truth, rtol=1e-5)


def test_the_level_of_a_noisy_beam_is_read_far_better_than_one_pixel():
    photons = 1000
    frame = np.random.default_rng(1).poisson(0.97 * photons * sample()) / photons
    assert beam_of(frame.astype(np.float32), 15).level == pytest.approx(0.97, abs=0.005)


def test_bad_pixels_do_not_move_it():
    frame = sample() * np.float32(0.97)
    frame[::7, 3] = 1e4
    frame[::5, 95] = 1e-6
    beam = beam_of(frame, 10)
    assert (beam.left, beam.right) == (pytest.approx(0.97), pytest.approx(0.97))


def test_a_side_that_the_sample_reaches_into_is_not_used_and_that_is_told():
    truth = sample()
    truth[:, :15] *= 0.5
    beam = beam_of(truth * np.float32(1.02), 10)
    assert beam.obstructed
    assert beam.level == pytest.approx(1.02)


@pytest.mark.parametrize(("shift_mm", "side"), [(3.0, "right"), (-3.0, "left")])
def test_in_an_extended_field_only_the_long_side_is_read(shift_mm: float, side: Side):
    set_up = ParallelGeometry(n_u=100, n_v=60, pixel_mm=0.1, detector_u_mm=shift_mm)
    assert air_side(set_up) is None
    assert air_side(replace(set_up, extended_field=True)) == side
    # Thin enough at the short side to be taken for the beam's drift, if it were read.
    frame = sample() * np.float32(1.02)
    short = slice(0, 30) if side == "right" else slice(70, 100)
    frame[:, short] *= 0.95
    beam = beam_of(frame, 10, side)
    assert (beam.left, beam.right, beam.obstructed) == (pytest.approx(1.02), pytest.approx(1.02), False)


def test_more_columns_than_there_are_is_refused():
    require_columns(50, 100)
    with pytest.raises(ValueError, match="air_columns is 51 at each side and the detector has 100 columns"):
        require_columns(51, 100)
