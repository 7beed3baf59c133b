"""`bluesky-jit reconstruct`: the whole volume of a stored scan, or of a run that Tiled has recorded."""

from __future__ import annotations

import logging
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from bluesky_jit.cli.found_settings import contradictions
from bluesky_jit.cli.scan_source import Load, find_scan, log_above
from bluesky_jit.offline.files import require_new
from bluesky_jit.offline.volume import Volume, reconstruct
from bluesky_jit.session.workers import Workers, available_cores

logger = logging.getLogger(__name__)


def reconstruct_source(source: str, output: Path, load: Load, *, heights_mm: tuple[float, float] | None = None) -> None:
    """Reconstruct a file or a run with all cores and progress bars, and say what came out."""
    settings = load()
    progress = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bars = Progress(*columns, console=progress)
    tasks: dict[str, TaskID] = {}

    def advance(doing: str, done: int, total: int) -> None:
        if doing not in tasks:
            bars.start()
            tasks[doing] = bars.add_task(doing, total=total)
        bars.update(tasks[doing], completed=done)

    with log_above(progress), Workers(settings.tomo.workers or available_cores()) as workers:
        require_new(output)
        try:
            with find_scan(source, settings) as scan:
                # What a file says of its set-up counts where the settings say nothing.
                known = load(scan.says)
                for sentence in contradictions(scan.says, known):
                    logger.warning("%s: %s", scan.name, sentence)
                volume = reconstruct(scan, output, known, heights_mm=heights_mm, pool=workers, progress=advance)
        finally:
            if tasks:
                bars.stop()
    _tell(volume, Console())


def _tell(volume: Volume, console: Console) -> None:
    nz, ny, nx = volume.grid.shape
    voxel_um = 1e3 * float(volume.grid.x_step[0])
    if volume.axis is not None:
        axis = volume.axis
        console.print(
            f"rotation axis at column {axis.column:.2f} ± {axis.error_px:.2f} (offset {axis.offset_mm:.5g} mm, "
            f"confidence {axis.confidence:.2f}, from {axis.evidence})",
            soft_wrap=True,
        )
    console.print(
        f"{volume.path}: {nz} × {ny} × {nx} voxels of {voxel_um:.4g} µm from {volume.n_projections} projections, "
        f"in {volume.taken_s:.1f} s; look at {volume.picture}",
        soft_wrap=True,
    )
    for warning in volume.warnings:
        console.print(warning, style="yellow", soft_wrap=True)
