"""Tables of spheres and cylinders, with exact chords along the rays of a detector and exact membership on a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from bluesky_jit.tomo.geometry import ConeGeometry, Geometry
from bluesky_jit.tomo.grid import Grid


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bodies:
    """List bodies of one material that each lie wholly inside one other material, which they displace.

    centres: float64 (n, 3) mm; axes: float64 (n, 3), a cylinder's unit axis, or zero for a sphere;
    lows, highs: float64 (n,) mm, a cylinder's ends along its axis, counted from its centre; radii: float64 (n,) mm;
    materials, displaced: int64 (n,).
    """

    centres: np.ndarray
    axes: np.ndarray
    lows: np.ndarray
    highs: np.ndarray
    radii: np.ndarray
    materials: np.ndarray
    displaced: np.ndarray

    def __len__(self) -> int:
        return len(self.radii)

    def contrasts(self, attenuations: np.ndarray) -> np.ndarray:
        """Return float64 (n,) 1/mm, what each body adds to what it displaces; attenuations: (n_materials,)."""
        return attenuations[self.materials] - attenuations[self.displaced]

    def bounding_spheres(self) -> tuple[np.ndarray, np.ndarray]:
        """Return centres (n, 3) and radii (n,) of spheres that enclose the bodies."""
        middle, half = (self.highs + self.lows) / 2, (self.highs - self.lows) / 2
        return self.centres + middle[:, None] * self.axes, np.hypot(self.radii, half)

    def kept(self, keep: np.ndarray) -> Bodies:
        """Return the bodies that a boolean array (n,) marks."""
        return Bodies(
            centres=self.centres[keep],
            axes=self.axes[keep],
            lows=self.lows[keep],
            highs=self.highs[keep],
            radii=self.radii[keep],
            materials=self.materials[keep],
            displaced=self.displaced[keep],
        )


def spheres(centres_mm: np.ndarray, radii_mm: np.ndarray, *, material: int, displaced: int) -> Bodies:
    """Make spheres of one material; those whose radius is not positive are left out."""
    n = len(radii_mm)
    table = Bodies(
        centres=np.asarray(centres_mm, dtype=np.float64).reshape(n, 3),
        axes=np.zeros((n, 3)),
        lows=np.zeros(n),
        highs=np.zeros(n),
        radii=np.asarray(radii_mm, dtype=np.float64),
        materials=np.full(n, material),
        displaced=np.full(n, displaced),
    )
    return table.kept(table.radii > 0)


def cylinder(
    *,
    centre_mm: Sequence[float] = (0, 0, 0),
    axis: Sequence[float] = (0, 0, 1),
    low_mm: float,
    high_mm: float,
    radius_mm: float,
    material: int,
    displaced: int,
) -> Bodies:
    """Make one cylinder that runs from low to high along its axis through the centre; none when it has no volume."""
    direction = np.asarray(axis, dtype=np.float64)
    table = Bodies(
        centres=np.asarray(centre_mm, dtype=np.float64).reshape(1, 3),
        axes=(direction / np.linalg.norm(direction)).reshape(1, 3),
        lows=np.array([low_mm], dtype=np.float64),
        highs=np.array([high_mm], dtype=np.float64),
        radii=np.array([radius_mm], dtype=np.float64),
        materials=np.array([material]),
        displaced=np.array([displaced]),
    )
    return table.kept((table.radii > 0) & (table.highs > table.lows))


def joined(tables: Sequence[Bodies]) -> Bodies:
    """Return one table of all the bodies."""
    return Bodies(
        centres=np.concatenate([table.centres for table in tables]),
        axes=np.concatenate([table.axes for table in tables]),
        lows=np.concatenate([table.lows for table in tables]),
        highs=np.concatenate([table.highs for table in tables]),
        radii=np.concatenate([table.radii for table in tables]),
        materials=np.concatenate([table.materials for table in tables]),
        displaced=np.concatenate([table.displaced for table in tables]),
    )


def line_integrals(bodies: Bodies, contrasts: np.ndarray, geometry: Geometry, angle_rad: float) -> np.ndarray:
    """Return float32 (n_v, n_u): contrast times chord, summed, along the ray through every pixel's centre."""
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    turn = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    shift = np.array([geometry.axis_offset_mm, 0.0, 0.0])
    centres, axes = bodies.centres @ turn.T + shift, bodies.axes @ turn.T
    middles, reaches = bodies.bounding_spheres()
    middles = middles @ turn.T + shift
    x = (np.arange(geometry.n_u) - geometry.u_centre) * geometry.voxel_mm
    z = (np.arange(geometry.n_v) - geometry.v_centre) * geometry.voxel_mm
    # Zero stands for a source infinitely far away.
    source = geometry.source_axis_mm if isinstance(geometry, ConeGeometry) else 0.0
    across, along, up = middles.T
    columns = _seen_range(across, along, reaches, source, geometry.voxel_mm, geometry.n_u)
    rows = _seen_range(up, along, reaches, source, geometry.voxel_mm, geometry.n_v)
    image = np.zeros((geometry.n_v, geometry.n_u))
    _add_chords(image, x, z, source, centres, axes, bodies.lows, bodies.highs, bodies.radii, contrasts, columns, rows)
    return image.astype(np.float32)


def attenuation(bodies: Bodies, contrasts: np.ndarray, grid: Grid) -> np.ndarray:
    """Return float32 (nz, ny, nx): the contrasts of the bodies around each point of the grid, summed."""
    middles, reaches = bodies.bounding_spheres()
    steps, shape = grid.steps, np.array(grid.shape)
    first, last = np.zeros((len(bodies), 3), dtype=np.int64), np.tile(shape, (len(bodies), 1))
    if abs(np.linalg.det(steps)) > 1e-12 * np.prod(np.linalg.norm(steps, axis=1)):
        # A body reaches only so many lattice points either side of its middle.
        inverse = np.linalg.inv(steps)
        middle = (middles - np.asarray(grid.origin)) @ inverse
        reach = reaches[:, None] * np.linalg.norm(inverse, axis=0)
        first = np.clip(np.floor(middle - reach), 0, shape).astype(np.int64)
        last = np.clip(np.ceil(middle + reach) + 1, 0, shape).astype(np.int64)
    volume = np.zeros(grid.shape)
    _add_points(
        volume,
        np.asarray(grid.origin),
        steps,
        bodies.centres,
        bodies.axes,
        bodies.lows,
        bodies.highs,
        bodies.radii,
        contrasts,
        first,
        last,
    )
    return volume.astype(np.float32)


def _seen_range(
    across: np.ndarray, along: np.ndarray, reach: np.ndarray, source: float, pixel: float, n: int
) -> np.ndarray:
    """Return int64 (n_bodies, 2): first and past-the-last pixel that spheres can shadow, by their tangents."""
    if source > 0:
        depth = along + source
        middle = np.arctan2(across, depth)
        half = np.arcsin(np.minimum(reach / np.hypot(across, depth), 1.0))
        limit = np.pi / 2 - 1e-6
        low = source * np.tan(np.clip(middle - half, -limit, limit))
        high = source * np.tan(np.clip(middle + half, -limit, limit))
    else:
        low, high = across - reach, across + reach
    centre = (n - 1) / 2
    first = np.clip(np.floor(low / pixel + centre), 0, n)
    last = np.clip(np.ceil(high / pixel + centre) + 1, 0, n)
    return np.stack([first, last], axis=1).astype(np.int64)


@njit(cache=True, nogil=True)
def _add_chords(image, x, z, source, centres, axes, lows, highs, radii, contrasts, columns, rows):  # pragma: no cover
    for b in range(len(radii)):
        cx, cy, cz = centres[b]
        ax, ay, az = axes[b]
        square = radii[b] * radii[b]
        is_sphere = ax == 0.0 and ay == 0.0 and az == 0.0
        for row in range(rows[b, 0], rows[b, 1]):
            for column in range(columns[b, 0], columns[b, 1]):
                # The ray o + t·d, with |d| = 1, in the lab: from the source, or along +y.
                if source > 0.0:
                    length = np.sqrt(x[column] ** 2 + source * source + z[row] ** 2)
                    dx, dy, dz = x[column] / length, source / length, z[row] / length
                    ox, oy, oz = -cx, -source - cy, -cz
                else:
                    dx, dy, dz = 0.0, 1.0, 0.0
                    ox, oy, oz = x[column] - cx, -cy, z[row] - cz
                if is_sphere:
                    along = ox * dx + oy * dy + oz * dz
                    # The nearest point to the centre, not |o|² − along²: that loses digits when the source is far.
                    px, py, pz = ox - along * dx, oy - along * dy, oz - along * dz
                    rest = square - (px * px + py * py + pz * pz)
                    if rest > 0.0:
                        image[row, column] += contrasts[b] * 2.0 * np.sqrt(rest)
                    continue
                d_axis = dx * ax + dy * ay + dz * az
                o_axis = ox * ax + oy * ay + oz * az
                ex, ey, ez = dx - d_axis * ax, dy - d_axis * ay, dz - d_axis * az
                qx, qy, qz = ox - o_axis * ax, oy - o_axis * ay, oz - o_axis * az
                a = ex * ex + ey * ey + ez * ez
                if a > 1e-18:
                    along = -(qx * ex + qy * ey + qz * ez) / a
                    px, py, pz = qx + along * ex, qy + along * ey, qz + along * ez
                    rest = (square - (px * px + py * py + pz * pz)) / a
                    if rest <= 0.0:
                        continue
                    half = np.sqrt(rest)
                    enter, leave = along - half, along + half
                elif qx * qx + qy * qy + qz * qz < square:
                    enter, leave = -np.inf, np.inf
                else:
                    continue
                if abs(d_axis) > 1e-12:
                    one, other = (lows[b] - o_axis) / d_axis, (highs[b] - o_axis) / d_axis
                    enter, leave = max(enter, min(one, other)), min(leave, max(one, other))
                elif o_axis < lows[b] or o_axis > highs[b]:
                    continue
                if leave > enter:
                    image[row, column] += contrasts[b] * (leave - enter)


@njit(cache=True, nogil=True)
def _add_points(volume, origin, steps, centres, axes, lows, highs, radii, contrasts, first, last):  # pragma: no cover
    for b in range(len(radii)):
        ax, ay, az = axes[b]
        square = radii[b] * radii[b]
        for k in range(first[b, 0], last[b, 0]):
            for j in range(first[b, 1], last[b, 1]):
                for i in range(first[b, 2], last[b, 2]):
                    x = origin[0] + k * steps[0, 0] + j * steps[1, 0] + i * steps[2, 0] - centres[b, 0]
                    y = origin[1] + k * steps[0, 1] + j * steps[1, 1] + i * steps[2, 1] - centres[b, 1]
                    z = origin[2] + k * steps[0, 2] + j * steps[1, 2] + i * steps[2, 2] - centres[b, 2]
                    height = x * ax + y * ay + z * az
                    x, y, z = x - height * ax, y - height * ay, z - height * az
                    # Ends and mantle belong to the body, so that faces that two bodies share cancel exactly.
                    if x * x + y * y + z * z <= square and lows[b] <= height <= highs[b]:
                        volume[k, j, i] += contrasts[b]
