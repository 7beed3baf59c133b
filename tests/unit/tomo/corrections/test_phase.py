"""Phase retrieval gives back the attenuation that a wave's fringes hide, in the sample's own units."""

import numpy as np
import pytest
from analytic_balls import Ball

from bluesky_jit.tomo.corrections.phase import make_phase_filter, propagation_of, retrieved, wavelength_mm
from bluesky_jit.tomo.geometry import ConeGeometry, ParallelGeometry

ENERGY_KEV = 20.0
LAMBDA_MM = 12.398419843320026e-7 / ENERGY_KEV
DELTA_BETA = 800.0
MU = 0.5
PIXEL = 0.002
DISTANCE = 150.0
BEAM = ParallelGeometry(n_u=192, n_v=160, pixel_mm=PIXEL)
PARALLEL = {"delta_beta": DELTA_BETA, "energy_kev": ENERGY_KEV, "propagation_mm": DISTANCE}


def wave_behind(line_integrals, delta_beta=DELTA_BETA):
    """Return the wave just behind one material: attenuated by µt, and retarded by 2π δ t / λ = δ/β · µt / 2."""
    return np.exp(-(1 + 1j * delta_beta) * line_integrals / 2)


def propagated(wave, step_mm, wavelength, distance_mm):
    """Return the intensity after free space, by the exact angular spectrum of plane waves; wave of any dimensions."""
    frequencies = np.meshgrid(*(np.fft.fftfreq(n, step_mm) for n in wave.shape), indexing="ij", sparse=True)
    along = np.sqrt(1 - wavelength**2 * sum(f**2 for f in frequencies))
    phase = 2 * np.pi * distance_mm / wavelength * (along - 1)
    return np.abs(np.fft.ifftn(np.fft.fftn(wave) * np.exp(1j * phase))) ** 2


def binned(fine, n):
    """Return what pixels n times as large see."""
    return fine.reshape(*(part for size in fine.shape for part in (size // n, n))).mean(
        axis=tuple(range(1, 2 * fine.ndim, 2))
    )


def ball_integrals(geometry, *, finer=2, soft=True, centre=(0.02, -0.015), radius=0.11):
    """Return a ball's line integrals in a parallel beam, on pixels `finer` times as fine."""
    step = geometry.pixel_mm / finer
    v, u = ((np.arange(n * finer) - (n * finer - 1) / 2) * step for n in (geometry.n_v, geometry.n_u))
    miss_squared = (u - centre[0]) ** 2 + (v[:, None] - centre[1]) ** 2
    return Ball((0, 0, 0), radius, MU, soft=soft).integral(miss_squared)


@pytest.fixture(scope="module")
def measured():
    """Return the line integrals of a soft ball, and its transmission after free space."""
    fine = ball_integrals(BEAM)
    intensity = propagated(wave_behind(fine), PIXEL / 2, LAMBDA_MM, DISTANCE)
    return binned(fine, 2), binned(intensity, 2).astype(np.float32)


def test_a_wave_carried_through_free_space_is_brought_back_to_its_attenuation(measured):
    truth, transmission = measured
    fringed = np.abs(-np.log(transmission) - truth).max()
    error = np.abs(retrieved(transmission, make_phase_filter(BEAM, **PARALLEL)) - truth).max()
    assert fringed > 0.4 * truth.max(), "the test needs strong fringes"
    assert error < 0.005 * truth.max()


def test_a_ball_with_a_sharp_edge_keeps_its_attenuation_inside():
    fine = ball_integrals(BEAM, soft=False, finer=4)
    near = {**PARALLEL, "propagation_mm": 20.0}
    intensity = binned(propagated(wave_behind(fine), PIXEL / 4, LAMBDA_MM, 20.0), 4)
    result = retrieved(intensity.astype(np.float32), make_phase_filter(BEAM, **near))
    truth = binned(fine, 4)
    inside = truth > 0.5 * truth.max()
    assert np.sqrt(np.mean((result - truth)[inside] ** 2)) < 0.02 * truth.max()


@pytest.mark.parametrize("factor", [0.7, 1.4])
@pytest.mark.parametrize("name", PARALLEL)
def test_any_other_number_is_wrong(measured, name, factor):
    truth, transmission = measured
    wrong = retrieved(transmission, make_phase_filter(BEAM, **{**PARALLEL, name: factor * PARALLEL[name]}))
    assert np.abs(wrong - truth).max() > 0.05 * truth.max()


def test_the_response_is_one_over_one_plus_area_times_wavenumber_squared():
    # 1 / (1 + area) · k², or 1 / 1 + area · k², is what a missing pair of brackets makes of it.
    response = make_phase_filter(BEAM, **PARALLEL).response
    area = LAMBDA_MM * DISTANCE * DELTA_BETA / (4 * np.pi)
    assert response[0, 0] == 1
    for v, u in [(0, 1), (3, 0), (7, 20), (159, 191)]:
        k_squared = (np.pi * v / (160 * PIXEL)) ** 2 + (np.pi * u / (192 * PIXEL)) ** 2
        assert response[v, u] == pytest.approx(1 / (1 + area * k_squared), rel=1e-6)


def test_a_wave_of_one_wavenumber_is_damped_by_the_response():
    k = 2 * np.pi / (24 * PIXEL)
    u = (np.arange(192) + 0.5) * PIXEL
    transmission = np.broadcast_to(0.5 + 0.1 * np.cos(k * u), (160, 192)).astype(np.float32)
    area = LAMBDA_MM * DISTANCE * DELTA_BETA / (4 * np.pi)
    expected = 0.5 + 0.1 * np.cos(k * u) / (1 + area * k**2)
    smooth = np.exp(-retrieved(transmission, make_phase_filter(BEAM, **PARALLEL)))
    np.testing.assert_allclose(smooth, np.broadcast_to(expected, (160, 192)), rtol=1e-5)


def test_without_propagation_it_is_minus_the_logarithm():
    transmission = np.random.default_rng(1).uniform(0.1, 1, (160, 192)).astype(np.float32)
    result = retrieved(transmission, make_phase_filter(BEAM, **{**PARALLEL, "propagation_mm": 0.0}))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, -np.log(transmission), atol=5e-6)


def test_nothing_wraps_around_the_sides():
    transmission = np.ones((160, 192), np.float32)
    transmission[:, :80] = 0.2
    transmission[:70] = 0.2
    result = retrieved(transmission, make_phase_filter(BEAM, **PARALLEL))
    assert np.abs(result[-5:, -5:]).max() < 5e-3
    assert result[0, 0] == pytest.approx(-np.log(0.2), rel=1e-2)


def test_a_detector_with_a_prime_number_of_rows_gives_what_one_row_more_gives():
    odd = ParallelGeometry(n_u=192, n_v=157, pixel_mm=PIXEL)
    transmission = np.random.default_rng(1).uniform(0.5, 1, (160, 192)).astype(np.float32)
    whole = retrieved(transmission, make_phase_filter(BEAM, **PARALLEL))
    part = retrieved(transmission[:157], make_phase_filter(odd, **PARALLEL))
    assert part.shape == (157, 192)
    # Away from the side, where each mirrors what it has.
    np.testing.assert_allclose(part[:100], whole[:100], atol=2e-3)


def test_a_shadow_too_deep_for_single_precision_stays_finite():
    transmission = np.ones((160, 192), np.float32)
    transmission[40:120, 40:150] = 1e-9
    assert np.isfinite(retrieved(transmission, make_phase_filter(BEAM, **PARALLEL))).all()


def test_in_a_cone_the_fringes_are_those_of_a_parallel_beam_over_a_shorter_way():
    """Carry a spherical wave through a soft fibre to the detector, in one dimension, which can be sampled finely."""
    cone = ConeGeometry(n_u=128, n_v=3, pixel_mm=0.004, source_axis_mm=400, source_detector_mm=800)
    wavelength = wavelength_mm(ENERGY_KEV)
    n_fine, n = 160, 2**17
    step = cone.pixel_mm / n_fine
    x = (np.arange(n) - n / 2 + 0.5) * step
    fibre = MU * 0.1 * np.clip(1 - (x / 0.09) ** 2, 0, None) ** 3
    # An opening with soft edges, far outside the detector's shadow, keeps the wave within the sampled range.
    opening = 1 / (1 + np.exp((np.abs(x) - 0.42) / 0.01))
    spherical = opening * np.exp(1j * np.pi * x**2 / (wavelength * cone.source_axis_mm))
    beam, shadow = (
        propagated(wave * spherical, step, wavelength, 400.0) for wave in (1.0, wave_behind(fibre, delta_beta=400.0))
    )
    middle = slice((n - 128 * n_fine) // 2, (n + 128 * n_fine) // 2)
    transmission = np.broadcast_to(binned(shadow[middle], n_fine) / binned(beam[middle], n_fine), (3, 128))
    u = (np.arange(128) - 63.5) * cone.voxel_mm
    truth = MU * 0.1 * np.clip(1 - (u / 0.09) ** 2, 0, None) ** 3
    fringed = np.abs(-np.log(transmission[1]) - truth).max()
    phase_filter = make_phase_filter(cone, delta_beta=400.0, energy_kev=ENERGY_KEV)
    error = np.abs(retrieved(transmission.astype(np.float32), phase_filter)[1] - truth).max()
    assert fringed > 0.2 * truth.max(), "the test needs strong fringes"
    assert error < 0.02 * truth.max()


def test_a_cone_takes_its_distance_from_the_set_up():
    cone = ConeGeometry(n_u=20, n_v=10, pixel_mm=0.1, source_axis_mm=100, source_detector_mm=400)
    assert propagation_of(cone) == propagation_of(cone, 300.0) == pytest.approx(75)
    with pytest.raises(ValueError, match="stands 300 mm behind the axis: leave propagation_mm out"):
        propagation_of(cone, 250.0)


def test_the_wavelength_is_that_of_the_literature():
    # Copper Kα1: 8.04778 keV and 1.540593 Å (Hölzer et al., Phys. Rev. A 56 (1997) 4554).
    assert wavelength_mm(8.04778) == pytest.approx(1.540593e-7, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"propagation_mm": None}, "propagation_mm is not given"),
        ({"propagation_mm": -1.0}, "propagation_mm is -1.0"),
        ({"energy_kev": 0.0}, "energy_kev is 0.0"),
        ({"delta_beta": float("nan")}, "delta_beta is nan"),
    ],
)
def test_a_number_that_means_nothing_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_phase_filter(BEAM, **{**PARALLEL, **changes})
