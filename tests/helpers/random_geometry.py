"""Random set-ups and grids for hypothesis: of every kind, with everything that can be off."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from bluesky_jit.tomo.calibration import SHIFTS, TURN, Calibration
from bluesky_jit.tomo.geometry import ConeGeometry, Geometry, ParallelGeometry
from bluesky_jit.tomo.grid import Grid


def between(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False, allow_subnormal=False)


@st.composite
def calibrations(draw: st.DrawFn, *, largest_mm: float) -> Calibration:
    """Draw shifts at 1 to 6 angles, some kinds of them not measured."""
    n = draw(st.integers(1, 6))
    start = draw(between(-3, 3))
    shifts = {
        name: tuple(draw(between(-largest_mm, largest_mm)) for _ in range(n)) for name in SHIFTS if draw(st.booleans())
    }
    return Calibration(angles_rad=tuple(start + TURN * k / n for k in range(n)), **shifts)


@st.composite
def geometries(
    draw: st.DrawFn, *, largest: int = 40, leaning: bool = True, tilted: bool = True, calibrated: bool = True
) -> Geometry:
    """Draw a set-up with a detector of up to `largest` pixels each way.

    leaning: with a roll, pitch and yaw; tilted: of the rotation axis, too; calibrated: perhaps with a calibration.
    """
    cone = draw(st.booleans())
    pixel_mm = draw(between(0.05, 2.0))
    magnification = draw(between(1.05, 20.0)) if cone else 1.0
    n_u, n_v = draw(st.integers(8, largest)), draw(st.integers(8, largest))
    # A quarter of the detector at most, in all: the axis stays on it, and something around the axis.
    loose_mm = min(n_u, n_v) * pixel_mm / 16
    values = {
        "n_u": n_u,
        "n_v": n_v,
        "pixel_mm": pixel_mm,
        "axis_offset_mm": draw(between(-1, 1)) * loose_mm / magnification,
        "detector_u_mm": draw(between(-1, 1)) * loose_mm,
        "detector_v_mm": draw(between(-1, 1)) * loose_mm,
        "extended_field": draw(st.booleans()),
    }
    if leaning:
        values |= {f"detector_{turn}_rad": draw(between(-0.3, 0.3)) for turn in ("roll", "pitch", "yaw")}
    if tilted:
        values["axis_tilt_rad"] = draw(between(-1, 1))
    if calibrated and draw(st.booleans()):
        values["calibration"] = draw(calibrations(largest_mm=loose_mm / magnification))
    if not cone:
        return ParallelGeometry(**values)
    # From a fan of 60° to a beam that is nearly parallel.
    source_detector_mm = draw(between(1.0, 20.0)) * max(n_u, n_v) * pixel_mm
    return ConeGeometry(
        **values, source_axis_mm=source_detector_mm / magnification, source_detector_mm=source_detector_mm
    )


@st.composite
def grids(draw: st.DrawFn, geometry: Geometry, *, largest: int = 70) -> Grid:
    """Draw an oriented grid in, across or wholly outside the field of view: flat, thick, one row or one point."""
    reach_mm = draw(st.sampled_from([0.5, 1.0, 4.0])) * min(geometry.radius_mm, geometry.half_height_mm)
    vectors = st.tuples(between(-1, 1), between(-1, 1), between(-1, 1))
    x_axis, y_axis = draw(st.tuples(vectors, vectors).filter(_two_directions))
    nz, ny, nx = draw(st.integers(1, 3)), draw(st.integers(1, largest)), draw(st.integers(1, largest))
    x, y, z = (reach_mm * value for value in draw(vectors))
    return Grid.centred(
        centre=(x, y, z),
        x_axis=x_axis,
        y_axis=y_axis,
        voxel_mm=draw(between(0.3, 3.0)) * geometry.voxel_mm,
        shape=(nz, ny, nx),
    )


def angle_lists(*, largest: int = 12) -> st.SearchStrategy[np.ndarray]:
    """Draw up to `largest` angles of several turns, in any order; perhaps none."""
    return st.lists(between(-20, 20), max_size=largest).map(lambda angles: np.array(angles, dtype=np.float64))


def _two_directions(pair: tuple[tuple[float, ...], tuple[float, ...]]) -> bool:
    x, y = np.array(pair)
    return bool(np.linalg.norm(np.cross(x, y)) > 0.05)
