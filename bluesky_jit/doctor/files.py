"""Files and folders: the camera's, read here, and those that a session writes to."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import h5py

from bluesky_jit.archive import spill_directory
from bluesky_jit.doctor.finding import Finding, fine, problem, warning
from bluesky_jit.settings import Settings

LEAST_FRAMES = 1000
"""A scan with room for fewer frames than a turn with its flats and darks takes is not worth beginning."""
FEW_FRAMES = 50_000
"""Ten minutes of the paper's detector, 83 frames a second."""
LEAST_BYTES = 1_000_000_000
"""Room for checkpoints, models and records: some hundred MB each (docs/how-to/resume-training.md)."""
PROBE_BYTES = 65536
BEING_WRITTEN = "not already open for SWMR"
"""HDF5's words for a file whose writer has not turned SWMR on, or was killed."""


def frame_files(*, directory: str, swmr: str, camera: str, frame_bytes: int) -> list[Finding]:
    """Tell whether the camera's folder is seen from here, its files can be read as they grow, and there is room."""
    if not directory:
        text = "its HDF5 plugin does not answer, and beamline.file_directory is empty"
        return [warning("frame files", f"where the camera writes is not known: {text}")]
    folder = Path(directory)
    if not folder.exists() and folder.parent.is_dir() and folder.parent != Path(folder.anchor):
        text = f"{folder} is not there yet: the camera makes it, if its machine sees {folder.parent}, too"
        return [warning("frame files", text), *_swmr(swmr, camera), *_frame_room(folder.parent, frame_bytes)]
    try:
        newest = max(folder.glob("*.h5"), key=lambda path: path.stat().st_mtime, default=None)
        next(folder.iterdir(), None)
    except OSError as error:
        return [
            problem(
                "frame files",
                f"{folder}, where the camera writes, cannot be read here ({error.strerror}): mount it at the same "
                f"path, or let the camera write elsewhere (beamline.file_directory, {camera}HDF1:FilePath)",
            )
        ]
    return [_readable(folder, newest), *_swmr(swmr, camera), *_frame_room(folder, frame_bytes)]


def _readable(folder: Path, newest: Path | None) -> Finding:
    if newest is None:
        return fine("frame files", f"{folder} is seen here; there is no .h5 file in it yet to try")
    try:
        # Of a file that nobody writes to SWMR asks nothing.
        with h5py.File(newest, "r", swmr=True, locking=False) as file:
            len(file)
    except OSError as error:
        if BEING_WRITTEN not in str(error):
            text = f"{newest}, the newest file of the camera, cannot be read ({error})"
            return problem("frame files", f"{text}: look at the disk, and at whose file it is")
        return warning(
            "frame files",
            f"{folder} is seen here; its newest file, {newest.name}, is being written without SWMR, and is read when "
            f"it is closed. If nothing writes to it, its writer was killed: `h5clear -s {newest.name}`",
        )
    return fine("frame files", f"{folder} is seen here, and its newest file can be read")


def _swmr(mode: str, camera: str) -> list[Finding]:
    if not mode:
        return []
    if mode in ("On", "1"):
        return [fine("SWMR", "on: frames are read as they are written")]
    return [
        warning(
            "SWMR",
            f"off, so that slices come only when a scan has ended: `caput {camera}HDF1:SWMRMode 1`, unless frames come "
            "by pvAccess",
        )
    ]


def _frame_room(folder: Path, frame_bytes: int) -> list[Finding]:
    free = shutil.disk_usage(folder).free
    if not frame_bytes:
        return []
    frames = free // frame_bytes
    text = f"{size(free)} free in {folder}: room for {frames:,} frames"
    if frames < LEAST_FRAMES:
        return [problem("disk", f"{text}: delete or move old scans")]
    if frames < FEW_FRAMES:
        return [warning("disk", f"{text}: think of deleting or moving old scans")]
    return [fine("disk", text)]


def own_folders(settings: Settings) -> list[Finding]:
    """Tell whether a session can write where the settings have it write."""
    folders = {
        "checkpoints": settings.learn.checkpoint_folder,
        "models": settings.learn.registry,
        "Tiled spill": str(spill_directory(settings.tiled)) if settings.tiled.uri else "",
    }
    settings_of = {
        "checkpoints": "learn.checkpoint_folder",
        "models": "learn.registry",
        "Tiled spill": "tiled.spill_directory",
    }
    return [
        writable(subject, Path(folder), settings_of[subject])
        if folder
        else fine(subject, f"none: {settings_of[subject] if subject != 'Tiled spill' else 'tiled.uri'} is empty")
        for subject, folder in folders.items()
    ]


def writable(subject: str, folder: Path, setting: str, *, least_bytes: int = LEAST_BYTES) -> Finding:
    """Tell whether files can be written to a folder, or to where it would be made, and whether there is room."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        # It has no name and is gone when it is closed: nothing is left behind, even if we are killed.
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
    except OSError as error:
        why = error.strerror or str(error)
        return problem(subject, f"{folder} cannot be written to ({why}): set {setting} to a folder that can")
    free = shutil.disk_usage(place).free
    if free < least_bytes:
        return warning(subject, f"{folder} has {size(free)} left: make room, or set {setting} to another disk")
    return fine(
        subject, f"{folder} can be written to{'' if place == folder else ' when it is made'}; {size(free)} free"
    )


def size(count: float) -> str:
    """Return a number of bytes as people read it."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
