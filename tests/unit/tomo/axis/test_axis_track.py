"""Turn by turn the axis is known better, its drift is followed, and a doubtful turn does no harm."""

import numpy as np
import pytest

from bluesky_jit.tomo.axis.estimate import AxisEstimate, no_estimate, part_within
from bluesky_jit.tomo.axis.track import AxisTracker

VOXEL_MM = 0.1


def estimate(column: float, error_px: float = 0.1, confidence: float | None = None) -> AxisEstimate:
    return AxisEstimate(
        offset_mm=(column - 100.0) * VOXEL_MM,
        column=column,
        error_px=error_px,
        confidence=part_within(error_px) if confidence is None else confidence,
        evidence="opposing views",
    )


def test_the_first_estimate_is_taken_as_it_is():
    assert AxisTracker().update(estimate(103.0)) == estimate(103.0)


def test_noise_is_averaged_out():
    random = np.random.default_rng(0)
    tracker = AxisTracker()
    columns = [tracker.update(estimate(103.0 + random.normal(0, 0.3), 0.3)).column for _ in range(400)]
    assert np.std(columns[20:]) < 0.2
    assert np.mean(columns[20:]) == pytest.approx(103.0, abs=0.05)


def test_drift_is_followed():
    tracker = AxisTracker()
    known = [tracker.update(estimate(103.0 + 0.1 * turn)) for turn in range(40)]
    assert known[-1].column == pytest.approx(103.0 + 3.9, abs=0.15)
    assert known[-1].offset_mm == pytest.approx((known[-1].column - 100.0) * VOXEL_MM)
    assert known[-1].trusted


def test_a_doubtful_turn_moves_hardly_anything():
    tracker = AxisTracker()
    for _ in range(5):
        before = tracker.update(estimate(103.0))
    after = tracker.update(estimate(103.6, 0.8, confidence=0.3))
    assert abs(after.column - before.column) < 0.02
    assert after.trusted


def test_a_wild_guess_is_left_out():
    tracker = AxisTracker()
    for _ in range(5):
        tracker.update(estimate(103.0))
    assert tracker.update(estimate(140.0, 0.3, confidence=0.2)).column == pytest.approx(103.0)


def test_an_axis_that_was_moved_is_found_again_at_once():
    tracker = AxisTracker()
    for _ in range(5):
        tracker.update(estimate(103.0))
    assert tracker.update(estimate(110.0)).column == 110.0


def test_a_trusted_estimate_replaces_a_doubtful_one():
    tracker = AxisTracker()
    tracker.update(estimate(80.0, 0.4, confidence=0.3))
    assert tracker.update(estimate(103.0)).column == 103.0
    assert tracker.update(no_estimate("it is dark")).column == pytest.approx(103.0)


def test_confidence_fades_when_nothing_more_is_learned():
    tracker = AxisTracker()
    known = [tracker.update(estimate(103.0))]
    known += [tracker.update(no_estimate("it is dark")) for _ in range(60)]
    confidence = [state.confidence for state in known]
    assert confidence == sorted(confidence, reverse=True)
    assert not known[-1].trusted
    assert known[-1].reason == "it is dark"
