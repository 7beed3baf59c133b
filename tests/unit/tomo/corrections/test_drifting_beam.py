"""A beam that changes during the scan, and zingers in it: slices keep their values in 1/mm."""

from dataclasses import replace

import numpy as np
import pytest
from analytic_balls import BEAM, DARK, Ball, counts_of, darks, flats, line_integrals, make_block

from bluesky_jit.tomo.corrections.wanted import Corrections
from bluesky_jit.tomo.geometry import ConeGeometry, ParallelGeometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.live import FilteredBackprojection

MU = 0.02
N = 180
CONE = ConeGeometry(n_u=120, n_v=12, pixel_mm=0.4, source_axis_mm=200, source_detector_mm=400)
SLICE = Grid.slice_xy(voxel_mm=0.2, shape=(90, 90))
RADIUS = np.linalg.norm(SLICE.points()[0, ..., :2], axis=-1)
BODY, OUTSIDE = RADIUS < 7.0, (RADIUS > 9.5) & (RADIUS < 11)
TURN = np.arange(N) * 2 * np.pi / N
INTEGRALS = line_integrals(CONE, [Ball((0, 0, 0), 8.5, MU)], TURN)


def counts(beam):
    """Return the counts of all projections under a beam of (N,) or (N, 1, n_u), as part of the flats'."""
    signal = BEAM * np.exp(-INTEGRALS) * np.reshape(beam, (N, 1, -1))
    return np.rint(signal + DARK).astype(np.uint16)


def reconstructed(frames, *, beam_after=None, corrections=None):
    """Return the slice, and the reconstruction, of a scan with flats before it and, with another beam, after it."""
    result = FilteredBackprojection(CONE, n_projections=N, corrections=corrections)
    result.push(darks(CONE))
    result.push(flats(CONE))
    result.push(make_block("projection", frames, angles_rad=TURN))
    if beam_after is not None:
        late = make_block("flat", np.full((2, CONE.n_v, CONE.n_u), DARK + BEAM * beam_after))
        result.push(replace(late, frame_times_s=late.frame_times_s + 0.01 * N))
    result.settle(drained=True)
    made = result.slices((SLICE,))
    assert made is not None
    return made.images[0][0], result


def error(image):
    """Return by what part the body's mean and the air's mean are off."""
    return max(abs(image[BODY].mean() / MU - 1), abs(image[OUTSIDE].mean() / MU))


TRUTH_ERROR = 3e-3
"""Of this coarse set-up with a steady beam."""


def test_a_steady_beam_gives_the_truth():
    assert error(reconstructed(counts(np.ones(N)))[0]) < TRUTH_ERROR


def test_flats_before_and_after_make_up_for_a_beam_that_fades_steadily():
    beam = np.linspace(1, 0.9, N)
    off = error(reconstructed(counts(beam))[0])
    image, reconstruction = reconstructed(counts(beam), beam_after=0.9)
    assert off > 0.05
    assert error(image) < TRUTH_ERROR
    assert any("the beam changed by -10.0% from the first flats" in text for text in reconstruction.warnings())


def test_air_columns_make_up_for_a_beam_that_flickers_and_tilts():
    rng = np.random.default_rng(1)
    level, tilt = rng.uniform(0.9, 1.0, N), rng.uniform(-0.02, 0.02, N)
    beam = level[:, None, None] * (1 + tilt[:, None, None] * np.linspace(-1, 1, CONE.n_u))
    off = reconstructed(counts(beam))[0]
    image, reconstruction = reconstructed(counts(beam), corrections=Corrections(air_columns=8))
    assert error(off) > 0.05
    assert error(image) < TRUTH_ERROR
    assert reconstruction.found.beam.level == pytest.approx(level[-1], abs=1e-3)
    assert reconstruction.found.most_drift == pytest.approx(level.min() - 1, abs=1e-3)
    assert any("the beam has been below the flats by 5% or more" in text for text in reconstruction.warnings())


@pytest.mark.parametrize("thin", [0.15, 1.0], ids=["a thin sample", "a thick sample"])
def test_in_an_extended_field_air_columns_see_the_beam_and_not_the_sample(thin):
    half = ParallelGeometry(n_u=80, n_v=3, pixel_mm=0.2, detector_u_mm=5.0, extended_field=True)
    mu = 0.02 * thin
    frames = counts_of(line_integrals(half, [Ball((0.5, 0.3, 0), 11.0, mu)], TURN))
    flicker = 1 + 0.03 * np.random.default_rng(8).standard_normal(N)
    frames = np.rint((frames - DARK) * flicker[:, None, None] + DARK).astype(np.uint16)
    result = FilteredBackprojection(half, n_projections=N, corrections=Corrections(air_columns=6))
    result.push(darks(half))
    result.push(flats(half))
    result.push(make_block("projection", frames, angles_rad=TURN))
    made = result.slices((Grid.slice_xy(voxel_mm=0.2, shape=(60, 60)),))
    assert made is not None
    assert made.images[0][0][15:45, 15:45].mean() == pytest.approx(mu, rel=5e-3)


def test_a_holder_in_the_air_columns_is_noticed_and_told():
    frames = counts(np.ones(N))
    frames[:, :, :8] = DARK + 0.3 * BEAM
    _, reconstruction = reconstructed(frames, corrections=Corrections(air_columns=8))
    assert reconstruction.found.obstructed == N
    assert any("set tomo.air_columns to fewer columns" in text for text in reconstruction.warnings())


def test_zingers_leave_no_streaks():
    rng = np.random.default_rng(2)
    clean = counts(0.5 * np.ones(N))
    frames = clean.copy()
    hits = [(n, rng.integers(2, 10), rng.integers(30, 90)) for n in range(N)]
    for n, v, u in hits:
        frames[n, v, u] += 20_000
    kept = Corrections(air_columns=8)
    removed = Corrections(air_columns=8, zinger_threshold=0.1)
    truth, without = reconstructed(clean, corrections=kept)[0], reconstructed(frames, corrections=kept)[0]
    image, reconstruction = reconstructed(frames, corrections=removed)
    assert abs(without - truth)[BODY].max() > 0.2 * MU
    assert abs(image - truth)[BODY].max() < 0.02 * MU
    assert reconstruction.found.zingers == len(hits)
    assert reconstruction.found.zingers_per_frame == 1.0
    assert not any("zinger" in text for text in reconstruction.warnings())


@pytest.mark.parametrize("value", [65535, DARK, 0])
def test_projections_that_show_nothing_but_full_or_dark_pixels_are_told(value):
    _, reconstruction = reconstructed(np.full_like(counts(np.ones(N)), value))
    assert any(
        "50% of the projections' pixels or more are too dark or too bright" in text
        for text in reconstruction.warnings()
    )


def test_more_zingers_than_there_can_be_are_told():
    frames = counts(0.5 * np.ones(N))
    frames[:, 5, 20:100:10] += 20_000
    _, reconstruction = reconstructed(frames, corrections=Corrections(zinger_threshold=0.1))
    assert reconstruction.found.zingers_per_frame == 8
    assert any("raise tomo.zinger_threshold" in text for text in reconstruction.warnings())
