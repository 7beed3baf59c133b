"""A beam of many energies makes a cup of a uniform cylinder; the polynomial makes it flat, and its value right."""

import numpy as np
import pytest
from analytic_balls import counts_of, darks, flats, make_block

from bluesky_jit.tomo.corrections.hardening import fit_hardening, hardening_of_spectrum, linearised
from bluesky_jit.tomo.geometry import ParallelGeometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.live import FilteredBackprojection

# Aluminium at 30, 40, 60 and 80 keV (NIST XCOM: 1.128, 0.5685, 0.2778 and 0.2018 cm²/g, 2.699 g/cm³), in 1/mm.
ALUMINIUM = np.array([0.3045, 0.1534, 0.0750, 0.0545])
WEIGHTS = np.array([3.0, 4.0, 2.0, 1.0])
THIN = float(WEIGHTS @ ALUMINIUM / WEIGHTS.sum())
RADIUS = 8.0
BEAM = ParallelGeometry(n_u=192, n_v=2, pixel_mm=0.1)
N = 180
SLICE = Grid.slice_xy(voxel_mm=0.1, shape=(160, 160))
FROM_AXIS = np.linalg.norm(SLICE.points()[0, ..., :2], axis=-1)


def measured_behind(thickness_mm):
    """Return −log of the signal: the energies' transmissions add up, their line integrals do not."""
    signal = sum(w * np.exp(-mu * np.asarray(thickness_mm)) for w, mu in zip(WEIGHTS, ALUMINIUM, strict=True))
    return -np.log(signal / WEIGHTS.sum())


def cylinder_slice(hardening=(1.0,)):
    u = (np.arange(BEAM.n_u) - BEAM.u_centre) * BEAM.pixel_mm
    chord = 2 * np.sqrt(np.clip(RADIUS**2 - u**2, 0, None))
    integrals = np.broadcast_to(linearised(measured_behind(chord), hardening), (N, BEAM.n_v, BEAM.n_u))
    reconstruction = FilteredBackprojection(BEAM, n_projections=N)
    reconstruction.push(darks(BEAM))
    reconstruction.push(flats(BEAM))
    reconstruction.push(make_block("projection", counts_of(integrals), angles_rad=np.arange(N) * np.pi / N))
    made = reconstruction.slices((SLICE,))
    assert made is not None
    return made.images[0][0]


def cupping(image):
    """Return by what part the rim is brighter than the middle."""
    rim = image[(FROM_AXIS > 0.88 * RADIUS) & (FROM_AXIS < 0.95 * RADIUS)].mean()
    return rim / image[0.1 * RADIUS > FROM_AXIS].mean() - 1


def test_a_uniform_cylinder_is_a_cup_without_and_flat_with_the_polynomial():
    hardening = hardening_of_spectrum(WEIGHTS, ALUMINIUM, thickness_mm=2 * RADIUS)
    cup, flat = cylinder_slice(), cylinder_slice(hardening)
    assert cupping(cup) > 0.15
    assert abs(cupping(flat)) < 0.05 * cupping(cup)
    assert flat[FROM_AXIS < 0.9 * RADIUS].mean() == pytest.approx(THIN, rel=5e-3)


def test_the_polynomial_gives_what_one_energy_would_have_given():
    hardening = hardening_of_spectrum(WEIGHTS, ALUMINIUM, thickness_mm=16)
    thickness = np.linspace(0, 16, 33)
    np.testing.assert_allclose(
        linearised(measured_behind(thickness), hardening), THIN * thickness, atol=1e-3 * THIN * 16
    )


def test_slices_can_be_made_to_show_another_energys_attenuation():
    hardening = hardening_of_spectrum(WEIGHTS, ALUMINIUM, thickness_mm=16, true_per_mm=0.0750)
    assert linearised(measured_behind(10.0), hardening) == pytest.approx(0.750, rel=2e-3)


def test_a_step_wedge_gives_the_coefficients_that_the_spectrum_does():
    steps = np.array([0.0, 1, 2, 4, 6, 8, 10, 12, 14, 16])
    noise = 1e-3 * np.random.default_rng(1).standard_normal(len(steps))
    wedge = fit_hardening(measured_behind(steps) + noise, THIN * steps, degree=3)
    known = hardening_of_spectrum(WEIGHTS, ALUMINIUM, thickness_mm=16, degree=3)
    p = measured_behind(np.linspace(0, 16, 30))
    np.testing.assert_allclose(linearised(p, wedge), linearised(p, known), atol=0.015)


def test_one_energy_needs_no_correction():
    assert hardening_of_spectrum(np.array([2.0]), np.array([0.1]), thickness_mm=20.0, degree=3) == pytest.approx(
        (1, 0, 0), abs=1e-9
    )


@pytest.mark.parametrize("coefficients", [(1.5,), (1.0, 0.05), (0.9, 0.1, -0.02, 0.003)])
def test_the_polynomial_is_the_sum_of_its_powers(coefficients):
    p = np.random.default_rng(2).uniform(-0.1, 4, (5, 7)).astype(np.float32)
    before = p.copy()
    result = linearised(p, coefficients)
    expected = sum(c * p.astype(float) ** n for n, c in enumerate(coefficients, start=1))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(p, before)


@pytest.mark.parametrize(
    ("measured", "true", "degree", "message"),
    [
        ([1.0, 2.0], [1.0], 1, "one true line integral for each"),
        ([1.0, np.nan], [1.0, 2.0], 1, "leave that step of the wedge out"),
        ([0.0, 1.0, 1.0], [0.0, 1.0, 1.0], 2, "1 different line integrals above 0"),
        ([1.0, 2.0, 3.0], [1.0, 1.8, 0.5], 3, "falls from"),
    ],
)
def test_pairs_that_fix_no_rising_polynomial_are_refused(measured, true, degree, message):
    with pytest.raises(ValueError, match=message):
        fit_hardening(np.array(measured), np.array(true), degree=degree)


@pytest.mark.parametrize(
    ("weights", "attenuation", "thickness", "message"),
    [
        ([1.0, 1.0], [0.1], 1.0, "one of each for an energy"),
        ([1.0, -1.0], [0.1, 0.2], 1.0, "weights of 0 or more"),
        ([1.0], [0.1], 0.0, "thickness_mm is 0.0"),
    ],
)
def test_a_spectrum_that_means_nothing_is_refused(weights, attenuation, thickness, message):
    with pytest.raises(ValueError, match=message):
        hardening_of_spectrum(np.array(weights), np.array(attenuation), thickness_mm=thickness)
