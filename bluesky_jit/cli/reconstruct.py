"""`bluesky-jit reconstruct`: the whole volume of a stored scan, or of a run that Tiled has recorded."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from bluesky_jit.intake.sources import open_scan
from bluesky_jit.offline.files import require_new
from bluesky_jit.offline.scan import Scan
from bluesky_jit.offline.volume import Volume, reconstruct
from bluesky_jit.session.workers import Workers, available_cores
from bluesky_jit.settings import Settings


def reconstruct_source(
    source: str, output: Path, settings: Settings, *, heights_mm: tuple[float, float] | None = None
) -> None:
    """Reconstruct a file or a run with all cores and progress bars, and say what came out."""
    progress = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bars = Progress(*columns, console=progress)
    tasks: dict[str, TaskID] = {}

    def advance(doing: str, done: int, total: int) -> None:
        if doing not in tasks:
            bars.start()
            tasks[doing] = bars.add_task(doing, total=total)
        bars.update(tasks[doing], completed=done)

    with _log_above(progress), Workers(settings.tomo.workers or available_cores()) as workers:
        require_new(output)
        try:
            with find_scan(source, settings) as scan:
                volume = reconstruct(scan, output, settings, heights_mm=heights_mm, pool=workers, progress=advance)
        finally:
            if tasks:
                bars.stop()
    _tell(volume, Console())


def find_scan(source: str, settings: Settings) -> AbstractContextManager[Scan]:
    """Open the file of that path, or else the run of that uid or scan id."""
    path = Path(source)
    if path.exists() or path.suffix or len(path.parts) > 1:
        return nullcontext(open_scan(path))
    if not settings.tiled.uri:
        raise ValueError(
            f"there is no file {source}, and no Tiled server to look for a run {source} in: check the path, or set "
            "tiled.uri"
        )
    # Tiled's client takes a second to import, which files need not wait for.
    from bluesky_jit.intake.recorded import recorded_scan

    return recorded_scan(source, settings)


@contextmanager
def _log_above(console: Console) -> Iterator[None]:
    """Let what is logged scroll above the bars instead of through them."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    root.handlers[:] = [RichHandler(console=console, show_time=False, show_path=False, highlighter=None)]
    try:
        yield
    finally:
        root.handlers[:] = handlers


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
