"""Reconstruct the whole volume of a stored scan, slab by slab, into a file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from bluesky_jit.intake.setup import geometry_of
from bluesky_jit.offline.files import require_new, require_room_for_volume, volume_file
from bluesky_jit.offline.picture import MiddleSlices
from bluesky_jit.offline.projections import Progress, find_axis, prepared_scan
from bluesky_jit.offline.scan import Scan
from bluesky_jit.settings import Settings
from bluesky_jit.tomo.axis.estimate import AxisEstimate
from bluesky_jit.tomo.geometry import Geometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.jobs import Pool, Priority
from bluesky_jit.tomo.kernels import choose

SLAB_VOXELS = 2**26
"""Voxels reconstructed at a time, 256 MB: enough for a pass over the projections to be worth it, ..."""
SLABS = 20
"""... and no more than this part of the volume, so that people see it advance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """Say what was written: where, the grid, the set-up, and what limits its values.

    picture: its middle slices; axis: the estimate, where the settings ask for one; taken_s: for all of it.
    """

    path: Path
    picture: Path
    grid: Grid
    geometry: Geometry
    n_projections: int
    axis: AxisEstimate | None
    warnings: tuple[str, ...]
    taken_s: float


def reconstruct(
    scan: Scan,
    path: Path,
    settings: Settings,
    *,
    heights_mm: tuple[float, float] | None = None,
    pool: Pool | None = None,
    progress: Progress = lambda doing, done, total: None,
) -> Volume:
    """Write a scan's volume; heights_mm: its lowest and highest plane, by default all that is seen.

    Raises ValueError for what cannot be reconstructed, before anything is written.
    """
    began = time.perf_counter()
    require_new(path)
    picture = path.with_name(path.name + ".png")
    if picture.exists():
        raise FileExistsError(f"{picture}, the volume's picture, exists already: give another name, or remove it first")
    geometry = geometry_of(scan.tomo, settings.geometry, scan.frame_shape)
    voxel_mm = settings.slices.voxel_mm or geometry.voxel_mm
    volume_grid(geometry, voxel_mm, heights_mm, settings.slices.size)
    kernel = choose(settings.tomo.kernel, pool)
    axis = None
    if settings.tomo.axis != "given":
        axis = find_axis(scan, geometry, settings.tomo, kernel, progress)
        if not axis.trusted:
            raise ValueError(
                f"the rotation axis is not sure enough (confidence {axis.confidence:.2f}): {axis.reason}. Give "
                "geometry.axis_offset_mm, and set tomo.axis to 'given'"
            )
        geometry = replace(geometry, axis_offset_mm=axis.offset_mm)
    grid = volume_grid(geometry, voxel_mm, heights_mm, settings.slices.size)
    require_room_for_volume(path, grid.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    with prepared_scan(scan, geometry, settings.tomo, scratch=path.parent, progress=progress) as prepared:
        attributes = {
            "source": scan.name,
            "origin_mm": list(grid.origin),
            "grid": grid.to_metadata(),
            "geometry": geometry.to_metadata(),
            "corrections": prepared.corrections,
            "filter": settings.tomo.filter,
            "filter_cutoff": settings.tomo.filter_cutoff,
            "n_projections": scan.n_projections,
            "arc_rad": prepared.plan.arc.length_rad,
            "warnings": list(prepared.warnings),
            "bluesky_jit": version("bluesky-jit"),
        }
        middle = MiddleSlices(grid.shape)
        with volume_file(path, shape=grid.shape, voxel_mm=voxel_mm, attributes=attributes) as planes:
            progress("reconstructing planes", 0, grid.shape[0])
            for first, slab in slabs(grid):
                jobs = prepared.plan.jobs((slab,), splits=False, priority=Priority.PREVIEW)
                last = first + slab.shape[0]
                planes[first:last] = made = kernel.run(jobs)[0, 0]
                middle.take(first, made)
                progress("reconstructing planes", last, grid.shape[0])
    # Now that the volume has its name: whatever becomes of the picture costs nothing else.
    middle.draw(grid, picture)
    return Volume(
        path=path,
        picture=picture,
        grid=grid,
        geometry=geometry,
        n_projections=scan.n_projections,
        axis=axis,
        warnings=prepared.warnings,
        taken_s=time.perf_counter() - began,
    )


def volume_grid(geometry: Geometry, voxel_mm: float, heights_mm: tuple[float, float] | None, size: int | None) -> Grid:
    """Return the grid of all that is seen, or of the planes between two heights."""
    half = geometry.half_height_mm
    low, high = heights_mm or (-half, half)
    if not (np.isfinite([low, high]).all() and -half <= low <= high <= half):
        raise ValueError(
            f"planes from z = {low:g} to {high:g} mm cannot be made: give the lower one first, both from {-half:.4g} "
            f"to {half:.4g} mm, which every projection sees"
        )
    n = max(1, round((high - low) / voxel_mm) if heights_mm is None else 1 + int((high - low) / voxel_mm + 1e-9))
    across = size or max(2, int(2 * geometry.radius_mm / voxel_mm))
    middle = (low + high) / 2 if heights_mm is None else low + (n - 1) / 2 * voxel_mm
    return Grid.centred(
        centre=(0, 0, middle), x_axis=(1, 0, 0), y_axis=(0, 1, 0), voxel_mm=voxel_mm, shape=(n, across, across)
    )


def slabs(grid: Grid) -> Iterator[tuple[int, Grid]]:
    """Yield parts of a volume, from its first plane to its last: the number of the part's first plane, and its grid."""
    n, ny, nx = grid.shape
    planes = max(1, min(SLAB_VOXELS // (ny * nx), -(-n // SLABS)))
    for first in range(0, n, planes):
        origin = np.asarray(grid.origin) + first * np.asarray(grid.z_step)
        shape = (min(planes, n - first), ny, nx)
        yield first, replace(grid, origin=tuple(origin), shape=shape)
