"""Stripes of pixels with a slightly wrong gain go; what the sample shows stays."""

from dataclasses import replace

import numpy as np
import pytest
from analytic_balls import Ball, counts_of, darks, flats, line_integrals, make_block
from scipy.ndimage import median_filter, uniform_filter1d

from bluesky_jit.tomo.corrections.rings import BLOCKS, ENOUGH_BLOCKS, RingEstimate
from bluesky_jit.tomo.corrections.wanted import Corrections
from bluesky_jit.tomo.geometry import ParallelGeometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.live import FilteredBackprojection

MU = 0.05
N = 270
ANGLES = np.arange(N) * 2 * np.pi / N
BEAM = ParallelGeometry(n_u=192, n_v=2, pixel_mm=0.1)
SLICE = Grid.slice_xy(voxel_mm=0.1, shape=(150, 150))
FROM_AXIS = np.linalg.norm(SLICE.points()[0, ..., :2], axis=-1)
BODY = Ball((0.4, -0.2, 0), 8.2, MU)


def bubbles():
    rng = np.random.default_rng(1)
    return [BODY, *(Ball((*rng.uniform(-4.5, 4.5, 2), 0), rng.uniform(0.3, 1.5), -MU) for _ in range(15))]


def stripes(size=0.004, seed=3):
    """Return stripes, as gain errors of half a percent leave them, and two of bad pixels side by side."""
    result = size * np.random.default_rng(seed).standard_normal((BEAM.n_v, BEAM.n_u))
    result[:, 60] += 7 * size
    result[:, 120:122] -= 7 * size
    return result


def angle_of(n, projections):
    return 2 * np.pi * n / projections


def estimated(frames, *, width=2, projections=N, axis_u=BEAM.u_centre):
    estimate = RingEstimate(*frames.shape[1:], width=width, projections=projections, axis_u=axis_u)
    for n, frame in enumerate(frames):
        estimate.update(frame.astype(np.float32), n, angle_of(n, projections))
    return estimate


def correction_of(frames, **options):
    correction = estimated(frames, **options).correction
    assert correction is not None
    return correction


def image(integrals):
    reconstruction = FilteredBackprojection(BEAM, n_projections=N)
    reconstruction.push(darks(BEAM))
    reconstruction.push(flats(BEAM))
    reconstruction.push(make_block("projection", counts_of(integrals), angles_rad=ANGLES))
    made = reconstruction.slices((SLICE,))
    assert made is not None
    return made.images[0][0]


def rms(difference, radius=7.0):
    """Return the rms within a radius of the axis, as a part of MU."""
    return float(np.sqrt(np.mean(difference[radius > FROM_AXIS] ** 2))) / MU


def test_rings_of_bad_gain_fall_to_less_than_half_in_a_sample_full_of_bubbles():
    true = line_integrals(BEAM, bubbles(), ANGLES)
    striped = true + stripes()
    truth = image(true)
    before, after = rms(image(striped) - truth), rms(image(striped - correction_of(striped)) - truth)
    assert before > 0.03
    assert after < 0.45 * before


def test_with_noise_what_rings_add_to_it_all_but_goes():
    true = line_integrals(BEAM, bubbles(), ANGLES)
    noisy = true + 0.03 * np.random.default_rng(5).standard_normal(true.shape)
    striped = noisy + stripes()
    truth = image(true)
    noise, before = rms(image(noisy) - truth), rms(image(striped) - truth)
    after = rms(image(striped - correction_of(striped)) - truth)
    assert before > 1.02 * noise
    assert after < 1.01 * noise


def test_without_rings_the_slice_keeps_its_bubbles():
    true = line_integrals(BEAM, bubbles(), ANGLES)
    assert rms(image(true - correction_of(true)) - image(true)) < 0.003


ROUND = {
    "a small ball": [Ball((0, 0, 0), 8.2, MU), Ball((0, 0, 0), 0.15, MU)],
    "a ball": [Ball((0, 0, 0), 8.2, MU), Ball((0, 0, 0), 0.4, MU)],
    "a thin tube": [Ball((0, 0, 0), 6.6, MU), Ball((0, 0, 0), 6.2, -MU)],
}


@pytest.mark.parametrize("axis_error", [0.0, 0.3], ids=["axis known", "axis a third of a pixel off"])
@pytest.mark.parametrize("sample", ROUND.values(), ids=ROUND.keys())
def test_what_is_round_about_the_axis_stands_still_like_a_stripe_and_is_not_eaten(sample, axis_error):
    # Centred, so that nothing at all tells the frames apart.
    true = line_integrals(BEAM, sample, ANGLES)
    truth = image(true)
    radius = 1.5 if sample[1].mu > 0 else 7.0
    careful, careless = (
        rms(image(true - correction_of(true, axis_u=axis)) - truth, radius)
        for axis in (BEAM.u_centre + axis_error, None)
    )
    assert careful < 0.005
    assert careless > 0.03, "it has to be protected"


ORDERS = {
    "one after the other": np.arange(N),
    "interlaced": np.concatenate([np.arange(first, N, 9) for first in (0, 4, 8, 3, 7, 2, 6, 1, 5)]),
    "golden": N * np.mod(np.arange(N) * (np.sqrt(5) - 1) / 2, 1),
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_in_whatever_order_half_a_turn_is_taken_the_samples_edges_are_not_eaten(order):
    angles = order * np.pi / N
    balls = [Ball((0, 0, 0), 8, MU), Ball((4, 2, 0), 0.3, 5 * MU), Ball((-3, 3, 0), 0.6, -MU)]
    true = line_integrals(BEAM, balls, angles)
    estimate = RingEstimate(2, 192, width=2, projections=N, period_rad=np.pi, axis_u=BEAM.u_centre)
    for n, frame in enumerate(true + stripes()[None]):
        estimate.update(frame.astype(np.float32), n, angles[n])
    assert estimate.correction is not None
    # What a ring correction cannot see is what is smooth along the row.
    assert np.abs(estimate.correction - stripes())[:, 8:-8].std() < 0.5 * stripes().std()
    for n, frame in enumerate(true, start=N):
        estimate.update(frame.astype(np.float32), n, angles[n - N])
    assert np.abs(estimate.correction).max() < 1e-4


def test_an_axis_that_moves_is_looked_at_again_from_half_a_pixel_on():
    true = line_integrals(BEAM, ROUND["a thin tube"], ANGLES) + stripes()
    estimate = estimated(true, axis_u=BEAM.u_centre + 6)
    wrong = estimate.correction
    estimate.axis_u = BEAM.u_centre + 5.6
    assert estimate.correction is wrong
    estimate.axis_u = BEAM.u_centre
    np.testing.assert_array_equal(estimate.correction, correction_of(true))
    estimate.axis_u = None
    np.testing.assert_array_equal(estimate.correction, correction_of(true, axis_u=None))


def test_after_a_move_of_the_axis_the_window_is_filtered_with_the_rings_of_the_new_place():
    right = replace(BEAM, axis_offset_mm=0.6)
    balls = [Ball((0, 0, 0), 8, MU), Ball((0, 0, 0), 4.0, MU), Ball((0, 0, 0), 3.85, -MU)]
    frames = counts_of(line_integrals(right, balls, ANGLES))
    rings = Corrections(ring_width=2, ring_projections=N)
    tubes = []
    for start in (right, BEAM):
        reconstruction = FilteredBackprojection(start, n_projections=N, corrections=rings)
        reconstruction.push(darks(BEAM))
        reconstruction.push(flats(BEAM))
        reconstruction.push(make_block("projection", frames, angles_rad=ANGLES))
        reconstruction.settle()
        if start is BEAM:
            reconstruction.set_axis_offset(0.6)
            assert reconstruction.settle()
        made = reconstruction.slices((SLICE,))
        assert made is not None
        tubes.append(made.images[0][0][(FROM_AXIS > 3.88) & (FROM_AXIS < 3.97)].mean() / MU - 1)
    assert tubes[0] > 0.9
    assert tubes[1] == pytest.approx(tubes[0], abs=0.01)


def test_rings_next_to_the_axis_are_taken_out_too():
    true = line_integrals(BEAM, [BODY], ANGLES)
    striped = true + stripes()
    truth = image(true)
    assert rms(image(striped - correction_of(striped)) - truth, radius=1.0) < 0.5 * rms(
        image(striped) - truth, radius=1.0
    )


@pytest.mark.parametrize("width", [1, 2, 5])
def test_a_blocks_stripes_are_what_a_median_leaves_of_the_details(width):
    frame = np.random.default_rng(2).standard_normal((3, 70)).astype(np.float32)
    estimate = RingEstimate(3, 70, width=width, projections=BLOCKS)
    for n in range(BLOCKS):
        estimate.update(frame, n, angle_of(n, BLOCKS))
    details = frame - uniform_filter1d(frame.astype(float), 4 * width + 1, axis=1, mode="nearest")
    expected = details - median_filter(details, (1, 2 * width + 1), mode="nearest")
    np.testing.assert_allclose(estimate.correction, expected, atol=2e-6)


def test_it_acts_from_half_the_projections_on_and_says_when_frames_deserve_to_be_corrected_again():
    estimate = RingEstimate(2, 40, width=2, projections=90)
    stages = []
    for n in range(200):
        estimate.update(np.zeros((2, 40), np.float32), n, angle_of(n, 90))
        stages.append(estimate.stage)
    acting = 90 * ENOUGH_BLOCKS // BLOCKS
    assert stages == [0] * (acting - 1) + [1] * (90 - acting) + [2] * 111


def test_the_blocks_hold_all_projections_also_when_nine_does_not_divide_them():
    estimate = RingEstimate(2, 40, width=2, projections=100)
    for n in range(99):
        estimate.update(np.zeros((2, 40), np.float32), n, angle_of(n, 100))
    assert estimate.stage == 1
    estimate.update(np.zeros((2, 40), np.float32), 99, angle_of(99, 100))
    assert estimate.stage == 2


def test_what_some_angles_show_is_no_stripe():
    frames = np.zeros((90, 2, 40))
    frames[:40, :, 20] = 0.1
    assert not correction_of(frames, projections=90).any()


def test_an_old_stripe_is_forgotten_after_as_many_projections_as_are_remembered():
    frames = np.zeros((180, 2, 40))
    frames[:90, :, 20] = 0.1
    assert correction_of(frames[:90], projections=90, axis_u=None)[0, 20] == pytest.approx(0.1)
    assert not correction_of(frames, projections=90, axis_u=None).any()


def test_a_frame_that_comes_again_counts_once():
    frames = np.random.default_rng(4).standard_normal((90, 2, 40)).astype(np.float32)
    once = correction_of(frames, projections=90)
    estimate = RingEstimate(2, 40, width=2, projections=90, axis_u=BEAM.u_centre)
    for n in [*range(50), *range(20, 50), *range(50, 90)]:
        estimate.update(frames[n], n, angle_of(n, 90))
    np.testing.assert_array_equal(estimate.correction, once)


def test_after_forgetting_it_begins_again_with_frames_seen_before():
    frames = np.random.default_rng(4).standard_normal((90, 2, 40)).astype(np.float32)
    estimate = estimated(frames[::-1], projections=90, axis_u=None)
    estimate.forget()
    assert (estimate.stage, estimate.correction) == (0, None)
    for n, frame in enumerate(frames):
        estimate.update(frame, n, angle_of(n, 90))
    np.testing.assert_array_equal(estimate.correction, correction_of(frames, projections=90, axis_u=None))


def test_a_correction_in_use_never_changes():
    frames = np.random.default_rng(4).standard_normal((180, 2, 40)).astype(np.float32)
    estimate = estimated(frames[:90], projections=90)
    taken = estimate.correction
    assert taken is not None
    copy = taken.copy()
    for n, frame in enumerate(frames[90:], start=90):
        estimate.update(frame, n, angle_of(n, 90))
    np.testing.assert_array_equal(taken, copy)


def test_a_row_knows_nothing_of_its_neighbours():
    frames = np.zeros((90, 3, 40))
    frames[:, 1, 12] = 0.1
    correction = correction_of(frames, projections=90, axis_u=None)
    assert correction[1, 12] == pytest.approx(0.1)
    assert not correction[[0, 2]].any()


@pytest.mark.parametrize(
    ("width", "projections", "message"), [(0, 90, "width is 0"), (9, 90, "1 to 8"), (2, 8, "is 8")]
)
def test_a_width_or_a_turn_that_cannot_work_is_refused(width, projections, message):
    with pytest.raises(ValueError, match=message):
        RingEstimate(2, 40, width=width, projections=projections)
