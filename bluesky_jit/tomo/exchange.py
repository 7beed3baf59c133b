"""Set-ups as other programs describe them: ASTRA's vectors and RTK's circular geometry, there and back.

Everything passes through one table of vectors (n, 12) in the sample's frame, a row for each angle: where the rays start
(cone) or where they go (parallel), the detector's centre, the step to the next column, the step to the next row. They
are those of the real detector. Neither ASTRA nor RTK is needed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from bluesky_jit.tomo.calibration import TURN, Calibration
from bluesky_jit.tomo.geometry import ConeGeometry, Geometry, ParallelGeometry

TO_RTK = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
"""RTK turns about y, with z towards the source: its (x, y, z) are our (x, z, -y)."""
PARALLEL_SOURCE_MM = 1000.0
"""RTK asks for a distance in a parallel beam too, and uses it for nothing."""
LEANS = ("detector_roll_rad", "detector_pitch_rad", "detector_yaw_rad")
TOLERANCE = 1e-6
"""Part of a pixel, or of a radian, that numbers may differ by and still be one number."""


class RtkProjection(NamedTuple):
    """Name what `ThreeDCircularProjectionGeometry.AddProjection` takes, in its order: mm and degrees."""

    source_axis_mm: float
    source_detector_mm: float
    gantry_deg: float
    projection_offset_x_mm: float
    projection_offset_y_mm: float
    out_of_plane_deg: float
    in_plane_deg: float
    source_offset_x_mm: float
    source_offset_y_mm: float


def vectors_of(geometry: Geometry, angles_rad: np.ndarray) -> np.ndarray:
    """Return the table of vectors, float64 (n, 12)."""
    cone = isinstance(geometry, ConeGeometry)
    angles = np.atleast_1d(np.asarray(angles_rad, dtype=np.float64))
    u, _, v = geometry.detector_axes.T
    shifts = np.zeros((2, len(angles)))
    if geometry.calibration:
        shifts += [geometry.calibration.shifts(name, angles) for name in ("detector_u_mm", "detector_v_mm")]
    along = geometry.source_detector_mm - geometry.source_axis_mm if cone else 0.0
    centre = (
        np.array([0.0, along, 0.0])
        + (geometry.detector_u_mm + shifts[0])[:, None] * u
        + (geometry.detector_v_mm + shifts[1])[:, None] * v
    )
    first = np.array([0.0, -geometry.source_axis_mm, 0.0]) if cone else np.array([0.0, 1.0, 0.0])
    laboratory = geometry.to_laboratory(angles)
    turns, origins = laboratory[:, :3, :3], laboratory[:, :3, 3]
    # From the laboratory back to the sample: rows times a turn are turned by its inverse.
    table = [
        np.einsum("nj,njk->nk", first - origins if cone else np.broadcast_to(first, origins.shape), turns),
        np.einsum("nj,njk->nk", centre - origins, turns),
        geometry.pixel_mm * (u @ turns),
        geometry.pixel_mm * (v @ turns),
    ]
    return np.concatenate(table, axis=1)


def geometry_of_vectors(vectors: np.ndarray, *, kind: str, n_u: int, n_v: int) -> tuple[Geometry, np.ndarray]:
    """Return a set-up, and its angles (n,) in rad, that has the rays of a table of vectors.

    The sample must turn about z; what shifts from angle to angle becomes a calibration. The same rays can be told in
    several ways: here a cone's detector has no yaw (the axis has an offset instead), its central ray passes z = 0 at
    the axis, and a parallel beam's detector has no shift along u.
    """
    first, centre, u, v, pixel_mm = _checked(vectors)
    normal = np.cross(v, u)
    parallel = kind == "parallel"
    if (np.sum(normal * (first if parallel else centre - first), axis=1) <= 0).any():
        raise ValueError("the detector is seen from behind: turn the order of its columns or of its rows round")
    across = np.cross(first if parallel else normal, [0.0, 0.0, 1.0])
    angles = np.unwrap(np.arctan2(-across[:, 1], across[:, 0]))
    upright = Rotation.from_euler("z", angles[:, None])
    if parallel:
        rise = upright.apply(first)[:, 2] / np.linalg.norm(first, axis=1)
        tilt_rad = _one("the axis' tilt", -np.arcsin(rise), TOLERANCE, "rad")
    else:
        _, along, height = upright.apply(first).mean(axis=0)
        if -along <= TOLERANCE * pixel_mm:
            raise ValueError(
                f"the source lies {-along:.3g} mm before the rotation axis, where it has no image: give vectors in mm "
                "from an origin on the axis, with the source outside the sample"
            )
        tilt_rad = float(np.arctan2(height, -along))
    laboratory = Rotation.from_euler("x", tilt_rad) * upright
    axes = np.stack([laboratory.apply(vector) for vector in (u, normal, v)], axis=2)
    values: dict[str, Any] = {"n_u": n_u, "n_v": n_v, "pixel_mm": pixel_mm, "axis_tilt_rad": tilt_rad}
    for name, turns in zip(LEANS, Rotation.from_matrix(axes).as_euler("yxz").T, strict=True):
        values[name] = _one(name, turns, TOLERANCE, "rad")
    if parallel:
        more, shifts = _placed_in_parallel(laboratory.apply(centre), axes)
    else:
        more, shifts = _placed_in_cone(laboratory.apply(first), laboratory.apply(centre), axes, pixel_mm)
    for name in ("detector_u_mm", "detector_v_mm"):
        values[name] = float(shifts[name].mean())
        shifts[name] = shifts[name] - values[name]
    measured = {name: tuple(shift) for name, shift in shifts.items() if abs(shift).max() > TOLERANCE * pixel_mm}
    if measured:
        values["calibration"] = Calibration(angles_rad=tuple(np.mod(angles, TURN)), **measured)
    return (ParallelGeometry if parallel else ConeGeometry)(**values, **more), angles


def to_astra(geometry: Geometry, angles_rad: np.ndarray) -> dict[str, Any]:
    """Return ASTRA's projection geometry (`cone_vec` or `parallel3d_vec`): what `astra.create_proj_geom` would."""
    return {
        "type": "cone_vec" if geometry.kind == "cone" else "parallel3d_vec",
        "DetectorRowCount": geometry.n_v,
        "DetectorColCount": geometry.n_u,
        "Vectors": vectors_of(geometry, angles_rad),
    }


def to_astra_slice(geometry: Geometry, angles_rad: np.ndarray) -> dict[str, Any]:
    """Return ASTRA's geometry in two dimensions (`fanflat_vec` or `parallel_vec`), of the plane of the central ray."""
    if any((geometry.detector_roll_rad, geometry.detector_pitch_rad, geometry.axis_tilt_rad)):
        raise ValueError("rows that are rolled, pitched or about a tilted axis lie in no plane: use to_astra instead")
    first, centre, u, _ = np.split(vectors_of(geometry, angles_rad), 4, axis=1)
    return {
        "type": "fanflat_vec" if geometry.kind == "cone" else "parallel_vec",
        "DetectorCount": geometry.n_u,
        "Vectors": np.concatenate([first[:, :2], centre[:, :2], u[:, :2]], axis=1),
    }


def from_astra(astra_geometry: Mapping[str, Any]) -> tuple[Geometry, np.ndarray]:
    """Return the set-up and its angles (n,) in rad of ASTRA's `cone_vec` or `parallel3d_vec`, lengths in mm."""
    kinds = {"cone_vec": "cone", "parallel3d_vec": "parallel"}
    kind = astra_geometry.get("type")
    if kind not in kinds:
        raise ValueError(
            f"ASTRA's geometry is {kind!r}: give one of {', '.join(kinds)} (astra.geom_2vec makes them of the others)"
        )
    return geometry_of_vectors(
        astra_geometry["Vectors"],
        kind=kinds[kind],
        n_u=int(astra_geometry["DetectorColCount"]),
        n_v=int(astra_geometry["DetectorRowCount"]),
    )


def to_rtk(geometry: Geometry, angles_rad: np.ndarray) -> list[RtkProjection]:
    """Return what RTK's AddProjection takes for each angle: `rtk_geometry.AddProjection(*projection)`.

    RTK's stack of projections then has pixel (0, 0) at -(n - 1) / 2 pixels, each way. A parallel beam has a
    source_detector_mm of 0, and must meet the detector squarely.
    """
    first, centre, u, v = np.split(vectors_of(geometry, angles_rad), 4, axis=1)
    u, v = u / geometry.pixel_mm, v / geometry.pixel_mm
    to_source = np.cross(u, v)
    # RTK's rows for each projection: along the columns, along the rows, towards the source.
    turns = np.stack([u, v, to_source], axis=1)
    in_plane, out_of_plane, gantry = -Rotation.from_matrix(turns @ TO_RTK.T).as_euler("ZXY", degrees=True).T
    offset = np.einsum("nij,nj->ni", turns, centre)
    if geometry.kind == "parallel":
        if geometry.detector_pitch_rad or geometry.detector_yaw_rad:
            raise ValueError(
                "RTK's parallel beam meets the detector squarely: set detector_pitch_rad and _yaw_rad to 0"
            )
        distances, source = np.zeros((2, len(u))), np.zeros_like(offset)
        distances[0] = PARALLEL_SOURCE_MM
    else:
        source = np.einsum("nij,nj->ni", turns, first)
        distances = np.stack([source[:, 2], source[:, 2] - offset[:, 2]])
    table = [*distances, gantry, *offset.T[:2], out_of_plane, in_plane, *source.T[:2]]
    return [RtkProjection(*map(float, row)) for row in np.transpose(table)]


def from_rtk(
    projections: Sequence[Sequence[float]], *, n_u: int, n_v: int, pixel_mm: float
) -> tuple[Geometry, np.ndarray]:
    """Return the set-up and its angles (n,) in rad of RTK's parameters, each as AddProjection takes them.

    The stack's pixel (0, 0) must lie at -(n - 1) / 2 pixels, each way.
    """
    table = np.array(projections, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] != len(RtkProjection._fields):
        raise ValueError(f"RTK's projections are an array of {table.shape}: give {', '.join(RtkProjection._fields)}")
    to_axis, to_detector, gantry, x, y, out_of_plane, in_plane, source_x, source_y = table.T
    turns = Rotation.from_euler("ZXY", -np.stack([in_plane, out_of_plane, gantry], axis=1), degrees=True).as_matrix()
    u, v, to_source = np.moveaxis(turns @ TO_RTK, 1, 0)
    kind = "parallel" if not to_detector.any() else "cone"
    if kind == "parallel":
        first, depth = -to_source, np.zeros_like(x)
    else:
        first = source_x[:, None] * u + source_y[:, None] * v + to_axis[:, None] * to_source
        depth = to_axis - to_detector
    centre = x[:, None] * u + y[:, None] * v + depth[:, None] * to_source
    vectors = np.concatenate([first, centre, pixel_mm * u, pixel_mm * v], axis=1)
    return geometry_of_vectors(vectors, kind=kind, n_u=n_u, n_v=n_v)


def _checked(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float]:
    """Return the four columns of a table, with steps of unit length, and the pixel's size."""
    vectors = np.asarray(vectors, dtype=np.float64)
    if vectors.ndim != 2 or vectors.shape[1] != 12 or not len(vectors) or not np.isfinite(vectors).all():
        raise ValueError(f"the vectors are an array of {vectors.shape}: give (n, 12), n at least 1, of finite numbers")
    first, centre, u, v = np.split(vectors, 4, axis=1)
    pixel_mm = float(np.linalg.norm(u, axis=1).mean())
    if not pixel_mm:
        raise ValueError("the vectors' pixels have no size: give the steps from column to column and row to row in mm")
    u, v = u / pixel_mm, v / pixel_mm
    if abs(np.linalg.norm([u, v], axis=2) - 1).max() > TOLERANCE or abs(np.sum(u * v, axis=1)).max() > TOLERANCE:
        raise ValueError("the vectors' pixels are not squares of one size: resample the projections to square pixels")
    return first, centre, u, v, pixel_mm


def _placed_in_parallel(centre: np.ndarray, axes: np.ndarray) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Place the axis so that the detector's centre, on average, needs no shift along u."""
    along = np.linalg.inv(axes[0][np.ix_([0, 2], [0, 2])])
    x, z = centre[:, 0], centre[:, 2]
    offset_mm = -float(x.mean() + along[0, 1] / along[0, 0] * z.mean())
    u, v = along @ [x + offset_mm, z]
    return {"axis_offset_mm": offset_mm}, {"detector_u_mm": u, "detector_v_mm": v}


def _placed_in_cone(
    source: np.ndarray, centre: np.ndarray, axes: np.ndarray, pixel_mm: float
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Place the axis and the detector as the source sees them, which stands still in the laboratory."""
    to_axis_mm = -float(source[:, 1].mean())
    sample = np.array([0.0, -to_axis_mm, 0.0]) - source
    offset_mm = float(sample[:, 0].mean())
    ray = centre - source
    depths = np.sum(ray * axes[:, :, 1], axis=1) / axes[:, 1, 1]
    depth_mm = _one("the distance from source to detector", depths, TOLERANCE * pixel_mm, "mm")
    on_detector = ray - np.array([0.0, depth_mm, 0.0])
    shifts = {
        "detector_u_mm": np.sum(on_detector * axes[:, :, 0], axis=1),
        "detector_v_mm": np.sum(on_detector * axes[:, :, 2], axis=1),
        "sample_x_mm": sample[:, 0] - offset_mm,
        "sample_y_mm": sample[:, 1],
        "sample_z_mm": sample[:, 2],
    }
    return {"axis_offset_mm": offset_mm, "source_axis_mm": to_axis_mm, "source_detector_mm": depth_mm}, shifts


def _one(name: str, values: np.ndarray, tolerance: float, unit: str) -> float:
    """Return what all angles agree on."""
    if np.ptp(values) > tolerance:
        raise ValueError(
            f"{name} goes from {values.min():.6g} to {values.max():.6g} {unit} over the angles: the sample must turn "
            "about z in front of a detector that keeps its lean and distance"
        )
    return float(values.mean())
