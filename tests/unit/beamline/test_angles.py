"""Orders of angles: what each promises."""

from __future__ import annotations

import numpy as np
import pytest

from bluesky_jit.beamline.angles import angles_deg


def test_sequential_angles_go_round_evenly() -> None:
    np.testing.assert_allclose(angles_deg("sequential", 2, 4), [0, 90, 180, 270] * 2)


def test_interlaced_turns_fill_each_others_gaps() -> None:
    angles = angles_deg("interlaced", 4, 6)
    np.testing.assert_allclose(np.diff(angles.reshape(4, 6), axis=1), 60)
    np.testing.assert_allclose(np.sort(angles), np.arange(24) * 15)
    np.testing.assert_allclose(angles[::6], [0, 30, 15, 45])


@pytest.mark.parametrize("n", [5, 34, 100])
def test_golden_angles_are_spread_whenever_the_scan_ends(n: int) -> None:
    angles = np.sort(angles_deg("golden", 1, 144)[:n])
    gaps = np.diff(np.append(angles, angles[0] + 360))
    assert gaps.max() < 2.7 * gaps.min()


def test_parts_of_a_turn_are_taken_too() -> None:
    assert len(angles_deg("sequential", 2.5, 180)) == 450
