"""Say how far a detector sees around the rotation axis: the field of view."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bluesky_jit.tomo.geometry import SetUp


def require_field(geometry: SetUp) -> None:
    """Raise ValueError when the detector does not see the axis, or reaches behind the source."""
    corners = np.array([[u, v, 1] for u in (0, geometry.n_u) for v in (0, geometry.n_v)])
    if (corners @ geometry.to_real[2]).min() <= 0:
        raise ValueError(
            f"a detector of {geometry.n_u}×{geometry.n_v} pixels with detector_pitch_rad "
            f"{geometry.detector_pitch_rad:g} and detector_yaw_rad {geometry.detector_yaw_rad:g} reaches behind the "
            "source: correct the angles, in rad, or pixel_mm"
        )
    (left, right), (down, up) = reaches_mm(geometry), heights_mm(geometry)
    if min(left, right, down, up) <= 0:
        raise ValueError(
            f"nothing is seen from every side: around the axis the detector sees {left:.4g} mm to the left, "
            f"{right:.4g} to the right, {down:.4g} down and {up:.4g} up; correct axis_offset_mm "
            f"({geometry.axis_offset_mm:g}), detector_u_mm ({geometry.detector_u_mm:g}) or detector_v_mm "
            f"({geometry.detector_v_mm:g})"
        )


def reaches_mm(geometry: SetUp) -> tuple[float, float]:
    """Return the radii of the circles around the axis that just touch the detector's left and right edge.

    They lie in the plane of the central ray; below 0 when the axis itself is beyond the edge.
    """
    left, right, _, _ = _window_mm(geometry)
    bend = np.cos(geometry.axis_tilt_rad) * geometry.curvature
    wobble = geometry.calibration.largest("sample_x_mm") if geometry.calibration else 0.0
    # The rays to the edges, measured from the central one, meet the circle aslant.
    aslant = [np.hypot(1, (edge + geometry.axis_offset_mm) * bend) for edge in (-left, right)]
    return float((left - wobble) / aslant[0]), float((right - wobble) / aslant[1])


def tilted_reach_mm(geometry: SetUp) -> float:
    """Return the radius of the circle around a tilted axis that just touches the detector's lower or upper edge."""
    _, _, down, up = _window_mm(geometry)
    sin, cos = np.sin(geometry.axis_tilt_rad), np.cos(geometry.axis_tilt_rad)
    # The lines from the source to the edge, against the circle's plane.
    slopes = abs(sin - up * geometry.curvature * cos) / up, abs(sin + down * geometry.curvature * cos) / down
    steepest = max(slopes)
    return float(1 / steepest) if steepest > np.finfo(np.float64).tiny else float("inf")


def heights_mm(geometry: SetUp) -> tuple[float, float]:
    """Return how far down and up every projection sees on the axis."""
    _, _, down, up = _window_mm(geometry)
    sin, cos = np.sin(geometry.axis_tilt_rad), np.cos(geometry.axis_tilt_rad)
    wobble = geometry.calibration.largest("sample_z_mm") if geometry.calibration else 0.0
    # An axis that leans away from the source, and a ray that leans after it, may never meet.
    lean_down, lean_up = cos - down * sin * geometry.curvature, cos + up * sin * geometry.curvature
    return (
        float(down / lean_down) - wobble if lean_down > 0 else float("inf"),
        float(up / lean_up) - wobble if lean_up > 0 else float("inf"),
    )


def cylinder_mm(geometry: SetUp) -> tuple[float, float]:
    """Return radius and half height of a large cylinder around the axis that every projection sees whole.

    An upright one is as wide as the field of view, and lower where a cone sees less height, nearer to its source. With
    a tilted axis, what every projection sees is a double cone, and this is the largest cylinder in it. A detector that
    leans sees a little less at its corners.
    """
    sin, cos = abs(np.sin(geometry.axis_tilt_rad)), np.cos(geometry.axis_tilt_rad)
    wobble = geometry.calibration.largest("sample_z_mm") if geometry.calibration else 0.0
    reach = min(_window_mm(geometry)[2:]) - wobble
    # Its rim nearest to the source must be on the detector: height · rise + radius · fall ≤ reach.
    rise, fall = cos + reach * sin * geometry.curvature, sin + reach * cos * geometry.curvature
    radius = geometry.radius_mm if fall == 0 else min(geometry.radius_mm, 2 / 3 * reach / fall)
    half_height = (reach - radius * fall) / rise
    return float(radius * (1 - half_height * sin * geometry.curvature)), float(half_height)


def _window_mm(geometry: SetUp) -> tuple[float, float, float, float]:
    """Return how far the real detector sees left, right, down and up of the axis, measured at the axis."""
    axis_column = geometry.u_centre + geometry.axis_offset_mm / geometry.voxel_mm
    centre = geometry.to_real @ [axis_column, geometry.v_centre, 1.0]
    reaches = []
    for column, shift in ((0, "detector_u_mm"), (1, "detector_v_mm")):
        step = geometry.to_real[:, column]
        low, high = -np.inf, np.inf
        for row, n in ((0, geometry.n_u), (1, geometry.n_v)):
            for sign, edge in ((1, -0.5), (-1, n - 0.5)):
                # A virtual pixel at distance t is on the detector where room + t · slope ≥ 0, for all four edges.
                room, slope = (sign * float(vector[row] - edge * vector[2]) for vector in (centre, step))
                if slope > 0:
                    low = max(low, -room / slope)
                elif slope < 0:
                    high = min(high, -room / slope)
        wobble = geometry.calibration.largest(shift) / geometry.pixel_mm if geometry.calibration else 0.0
        reaches += [(-low - wobble) * geometry.voxel_mm, (high - wobble) * geometry.voxel_mm]
    left, right, down, up = reaches
    return left, right, down, up
