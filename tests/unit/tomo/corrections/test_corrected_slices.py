"""Rings, fringes and hardening are gone from the slices when their correction is asked for: counts in, 1/mm out."""

from dataclasses import replace

import numpy as np
import pytest
from analytic_balls import Ball, counts_of, darks, flats, line_integrals, make_block

from bluesky_jit.tomo.corrections.hardening import hardening_of_spectrum
from bluesky_jit.tomo.corrections.wanted import Corrections
from bluesky_jit.tomo.geometry import ConeGeometry, ParallelGeometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.live import FilteredBackprojection

MU = 0.05
N = 180
TURN = np.arange(N) * 2 * np.pi / N
SLICE = Grid.slice_xy(voxel_mm=0.1, shape=(120, 120))
INSIDE = np.linalg.norm(SLICE.points()[0, ..., :2], axis=-1) < 5.5
DETECTOR = {"n_u": 160, "n_v": 4}
PARALLEL = ParallelGeometry(**DETECTOR, pixel_mm=0.1)
CONE = ConeGeometry(**DETECTOR, pixel_mm=0.2, source_axis_mm=300, source_detector_mm=600)
BALLS = [
    Ball((0.4, -0.2, 0), 6.8, MU),
    Ball((2, 1, 0), 1.2, -MU),
    Ball((-2, -1.4, 0), 0.8, MU),
    Ball((0, 3, 0), 0.5, MU),
]


def scan(geometry, integrals, *, corrections=None, late_flats=False, turns=1, n_projections=N, chunk=30):
    """Push darks, flats and projections as a run brings them, settle as at its end, and return the reconstruction."""
    result = FilteredBackprojection(geometry, n_projections=n_projections, corrections=corrections)
    result.push(darks(geometry))
    if not late_flats:
        result.push(flats(geometry))
    counts = counts_of(integrals)
    n_all = turns * len(integrals)
    for first in range(0, n_all, chunk):
        numbers = np.arange(first, min(first + chunk, n_all))
        frames = counts[numbers % len(counts)]
        result.push(make_block("projection", frames, angles_rad=numbers * 2 * np.pi / N, acquisition=numbers))
    if late_flats:
        result.push(flats(geometry))
    result.settle(drained=True)
    return result


def image(reconstruction):
    made = reconstruction.slices((SLICE,))
    assert made is not None
    return made.images[0][0]


def rms(difference):
    return float(np.sqrt(np.mean(difference[INSIDE] ** 2))) / MU


# ── rings ────────────────────────────────────────────────────────────────────────────────────────────────────────────


RINGS = Corrections(ring_width=2, ring_projections=N)


def striped(geometry):
    stripes = 0.004 * np.random.default_rng(3).standard_normal((geometry.n_v, geometry.n_u))
    stripes[:, 60] += 0.03
    true = line_integrals(geometry, BALLS, TURN)
    return true, true + stripes


@pytest.mark.parametrize("late_flats", [False, True], ids=["flats before", "flats after"])
@pytest.mark.parametrize("geometry", [CONE, PARALLEL], ids=["cone", "parallel"])
def test_after_one_turn_every_projection_of_the_window_is_free_of_stripes(geometry, late_flats):
    true, faulty = striped(geometry)
    truth = image(scan(geometry, true))
    before = rms(image(scan(geometry, faulty)) - truth)
    after = rms(image(scan(geometry, faulty, corrections=RINGS, late_flats=late_flats)) - truth)
    assert before > 0.03
    assert after < 0.35 * before


def test_rings_stay_away_turn_after_turn():
    true, faulty = striped(PARALLEL)
    truth = image(scan(PARALLEL, true))
    before = rms(image(scan(PARALLEL, faulty)) - truth)
    assert rms(image(scan(PARALLEL, faulty, corrections=RINGS, turns=3)) - truth) < 0.35 * before


def test_both_halves_of_the_projections_are_free_of_stripes():
    true, faulty = striped(PARALLEL)
    truth, halves = (scan(PARALLEL, p, corrections=c).pairs((SLICE,)) for p, c in ((true, None), (faulty, RINGS)))
    assert truth is not None
    assert halves is not None
    for half in range(2):
        assert rms(halves[0, half, 0, 0] - truth[0, half, 0, 0]) < 0.015


# ── hardening ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_hardened_beam_shows_a_uniform_ball_as_uniform():
    weights, contrasts = np.array([0.6, 0.4]), np.array([2.0, 0.5])
    mono = line_integrals(PARALLEL, [Ball((0, 0, 0), 6.8, MU)], TURN)
    poly = -np.log(sum(w * np.exp(-c * mono) for w, c in zip(weights, contrasts, strict=True)))
    hardening = hardening_of_spectrum(weights, contrasts * MU, thickness_mm=14)
    cup = image(scan(PARALLEL, poly))
    flat = image(scan(PARALLEL, poly, corrections=Corrections(hardening=hardening)))
    true_mu = MU * weights @ contrasts
    middle, rim = np.hypot(*SLICE.points()[0, ..., :2].T) < 1, INSIDE & (np.hypot(*SLICE.points()[0, ..., :2].T) > 5)
    assert cup[rim].mean() / cup[middle].mean() > 1.05
    assert flat[rim].mean() / flat[middle].mean() == pytest.approx(1, abs=5e-3)
    assert flat[INSIDE].mean() == pytest.approx(true_mu, rel=5e-3)


# ── phase ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("geometry", "distance_mm", "given"),
    [(CONE, 300 * 300 / 600, None), (PARALLEL, 900.0, 900.0)],
    ids=["cone", "parallel"],
)
def test_fringes_become_attenuation_again(geometry, distance_mm, given):
    """The transport of intensity, worked out by finite differences, makes the fringes: T → T − area · ∇²T."""
    tall = replace(geometry, n_v=64)
    soft = [replace(ball, soft=True) for ball in (*BALLS[:2], Ball((-2, -1, 0.2), 1.5, -MU))]
    transmission = np.exp(-line_integrals(tall, soft, TURN))
    area_mm2 = 0.03
    delta_beta = area_mm2 * 4 * np.pi / (1.2398419843320026e-6 / 20 * distance_mm)
    around = np.pad(transmission, ((0, 0), (1, 1), (1, 1)), mode="edge")
    bends = around[:, 2:, 1:-1] + around[:, :-2, 1:-1] + around[:, 1:-1, 2:] + around[:, 1:-1, :-2] - 4 * transmission
    fringed = -np.log(transmission - area_mm2 * bends / tall.voxel_mm**2)
    corrections = Corrections(delta_beta=delta_beta, energy_kev=20, propagation_mm=given)
    truth = image(scan(tall, -np.log(transmission)))
    before = rms(image(scan(tall, fringed)) - truth)
    assert before > 0.03
    assert rms(image(scan(tall, fringed, corrections=corrections)) - truth) < 0.1 * before
