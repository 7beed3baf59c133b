"""`bluesky-jit reconstruct`: the whole volume of a stored scan."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from bluesky_jit.intake.sources import open_scan
from bluesky_jit.offline.volume import Volume, reconstruct
from bluesky_jit.session.workers import Workers
from bluesky_jit.settings import Settings


def reconstruct_file(
    source: Path, output: Path, settings: Settings, *, heights_mm: tuple[float, float] | None = None
) -> None:
    """Reconstruct a file with all cores and a progress bar, and say what came out."""
    scan = open_scan(source)
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Workers(os.cpu_count() or 1) as workers, Progress(*columns, console=console) as bars:
        tasks: dict[str, TaskID] = {}

        def advance(doing: str, done: int, total: int) -> None:
            if doing not in tasks:
                tasks[doing] = bars.add_task(doing, total=total)
            bars.update(tasks[doing], completed=done)

        volume = reconstruct(scan, output, settings, heights_mm=heights_mm, pool=workers, progress=advance)
    _tell(volume, console)


def _tell(volume: Volume, console: Console) -> None:
    nz, ny, nx = volume.grid.shape
    voxel_um = 1e3 * float(volume.grid.x_step[0])
    if volume.axis is not None:
        axis = volume.axis
        console.print(
            f"rotation axis at column {axis.column:.2f} ± {axis.error_px:.2f} (offset {axis.offset_mm:.5g} mm, "
            f"confidence {axis.confidence:.2f}, from {axis.evidence})"
        )
    console.print(
        f"{volume.path}: {nz} × {ny} × {nx} voxels of {voxel_um:.4g} µm from {volume.n_projections} projections, "
        f"reconstructed and written in {volume.taken_s:.1f} s; look at {volume.picture}"
    )
    for warning in volume.warnings:
        console.print(f"[yellow]{warning}[/yellow]")
