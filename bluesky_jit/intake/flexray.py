"""Read folders of a FleX-ray scanner: numbered TIFF files and the scanner's `scan settings.txt`.

The layout, the meaning of the settings and the sense of rotation are those of flexDATA and of the data sets that CWI
has published (Zenodo 2686725 and others).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from bluesky_jit.intake.hdf5_values import settings_of
from bluesky_jit.intake.stored_scan import StoredFrames, StoredScan, UnreadableFrames
from bluesky_jit.messages import FrameKind

logger = logging.getLogger(__name__)

SETTINGS_NAME = "scan settings.txt"
PREFIXES: dict[FrameKind, str] = {"dark": "di", "flat": "io", "projection": "scan_"}
SENSOR = (1944, 1536)
"""Columns and rows of the scanner's detector, in which its region of interest is given (flexDATA, correct_roi)."""
SENSOR_PIXEL_MM = 0.0748
ALIKE = 0.01
"""Two ways to a pixel's size that differ by more contradict each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TIFFPages:
    """Read frames from pages of TIFF files; pages: the file and the page of each.

    Pictures have their highest row first, and frames their lowest.
    """

    pages: tuple[tuple[Path, int], ...]
    frame_shape: tuple[int, int]

    def read(self, rows: np.ndarray) -> np.ndarray:
        return np.stack([self._one(int(row)) for row in rows])

    def name(self, row: int) -> str:
        path, page = self.pages[row]
        return f"page {page} of {path}" if page else str(path)

    def _one(self, row: int) -> np.ndarray:
        path, page = self.pages[row]
        try:
            frame = tifffile.imread(path, key=page)
        except Exception as error:
            # A file that is cut off or spoilt makes the decoder raise almost anything.
            raise UnreadableFrames(f"{self.name(row)} cannot be read: {error}") from error
        if frame.shape != self.frame_shape:
            shapes = " and the others ".join("×".join(map(str, shape)) for shape in (frame.shape, self.frame_shape))
            raise UnreadableFrames(f"{self.name(row)} cannot be read: it has {shapes} pixels")
        return frame[::-1]


def is_flexray(folder: Path) -> bool:
    return any(folder.glob(f"{PREFIXES['projection']}*.tif*"))


def read_flexray(folder: Path) -> StoredScan:
    """Find the frames and angles of a folder; raise ValueError where they cannot be told."""
    written = read_settings(folder)
    files: dict[FrameKind, list[tuple[int, Path]]] = {k: _numbered(folder, prefix) for k, prefix in PREFIXES.items()}
    frame_shape, per_file = _shape(files["projection"])
    stores: dict[FrameKind, tuple[TIFFPages, list[int]]] = {
        kind: _pages(found, frame_shape, per_file if kind == "projection" else None) for kind, found in files.items()
    }
    numbers = np.array(stores["projection"][1])
    start, last, announced = (_number(written, key) for key in ("start angle", "last angle", "# projections"))
    if start is None or last is None:
        raise ValueError(f"{folder} has no {SETTINGS_NAME} with start and last angle: its projections cannot be placed")
    # Both ends of the arc are measured, and some scans have one picture more than they announce.
    n = max(int(announced or 0), int(numbers.max()) + 1)
    if n < 2:
        raise ValueError(f"{folder} has {n} projections: at least two are needed")
    # The scanner turns its sample clockwise as seen from above.
    angles = -np.deg2rad(np.linspace(start, last, n))[numbers]
    missing = sorted(set(range(n)) - set(numbers.tolist()))
    frames: dict[FrameKind, StoredFrames] = {}
    for kind, (store, known) in stores.items():
        if not known:
            continue
        frames[kind] = StoredFrames(
            store=store,
            rows=np.arange(len(known)),
            numbers=numbers if kind == "projection" else None,
            after=_after(written, len(known), len(numbers)) if kind == "flat" else None,
        )
    return StoredScan(
        path=folder,
        layout="FleX-ray",
        frames=frames,
        angles_rad=angles,
        frame_shape=frame_shape,
        times_s=np.full(len(numbers), np.nan),
        says=_says(folder, written),
        exposure_s=None if (exposure := _number(written, "exposure time (ms)")) is None else exposure / 1e3,
        lost=tuple(f"projection {number} is not in {folder}" for number in missing),
    )


def read_settings(folder: Path) -> dict[str, str]:
    """Return what the scanner wrote of a scan, by lower-case names; nothing where it wrote nothing."""
    found = next(
        (path for path in sorted(folder.iterdir()) if path.name.lower() in (SETTINGS_NAME, "settings.txt")), None
    )
    if found is None:
        return {}
    written: dict[str, str] = {}
    for line in found.read_text(errors="replace").splitlines():
        name, colon, value = line.partition(":")
        # Positions are written as `mag_det : 1069.000000; …`, times with colons of their own.
        if colon and value.strip():
            written[name.strip().lower()] = value.strip()
    return written


def _number(written: Mapping[str, str], name: str) -> float | None:
    """Return the number that a value begins with, or None."""
    found = re.match(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?", written.get(name, ""))
    return float(found.group()) if found else None


def _numbered(folder: Path, prefix: str) -> list[tuple[int, Path]]:
    """Return the files that begin so, by the number in their names."""
    found = [
        (int(number.group(1)), path)
        for path in folder.glob(f"{prefix}*")
        if (number := re.fullmatch(rf"{prefix}_?(\d+)\.tiff?", path.name, re.IGNORECASE))
    ]
    return sorted(found)


def _shape(files: list[tuple[int, Path]]) -> tuple[tuple[int, int], int]:
    """Return the frames' shape, and how many each file holds, from the first file that can be read."""
    reasons: list[str] = []
    for _, path in files:
        try:
            with tifffile.TiffFile(path) as tiff:
                rows, columns = tiff.pages[0].shape[-2:]  # pyright: ignore[reportAttributeAccessIssue]
                return (int(rows), int(columns)), len(tiff.pages)
        except Exception as error:  # noqa: BLE001 - the decoder raises almost anything
            reasons.append(f"{path.name}: {error}")
    raise ValueError(f"no projection could be read; {reasons[0] if reasons else 'there is none'}")


def _pages(
    files: list[tuple[int, Path]], frame_shape: tuple[int, int], per_file: int | None
) -> tuple[TIFFPages, list[int]]:
    """Return the pages of numbered files, and the number of each frame; per_file: of a series of equal files."""
    pages: list[tuple[Path, int]] = []
    numbers: list[int] = []
    for number, path in files:
        n = per_file or _page_count(path)
        pages += [(path, page) for page in range(n)]
        numbers += [number * n + page for page in range(n)]
    return TIFFPages(pages=tuple(pages), frame_shape=frame_shape), numbers


def _page_count(path: Path) -> int:
    try:
        with tifffile.TiffFile(path) as tiff:
            return len(tiff.pages)
    except Exception:  # noqa: BLE001 - it is told when it is read
        return 1


def _after(written: Mapping[str, str], n: int, n_projections: int) -> np.ndarray | None:
    """Return how many projections had been taken before each of n flats; None where the scanner does not say."""
    before, behind = (int(_number(written, f"# {when} flat fields") or 0) for when in ("pre", "post"))
    if before and behind and n == 2:
        # Each is the mean of so many.
        before = behind = 1
    if before + behind != n:
        return None
    return np.repeat([0, n_projections], [before, behind])


def _says(folder: Path, written: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return what the scanner says of the set-up.

    Positions across the beam are left out: they count from zeros that only a calibration of the scanner tells.
    """
    source_axis, source_detector = _number(written, "sod"), _number(written, "sdd")
    u_mm, v_mm = _region_offset_mm(written)
    return settings_of(
        geometry={
            "kind": "cone",
            "pixel_mm": _pixel_mm(folder, written, source_axis, source_detector),
            "source_axis_mm": source_axis,
            "source_detector_mm": source_detector,
            "detector_u_mm": u_mm,
            "detector_v_mm": v_mm,
        }
    )


def _pixel_mm(
    folder: Path, written: Mapping[str, str], source_axis: float | None, source_detector: float | None
) -> float | None:
    """Return the size of a pixel of the pictures, on the detector."""
    voxel_um, binned = _number(written, "voxel size"), _number(written, "binned pixel size")
    original, binning = _number(written, "original pixel size"), _number(written, "binning value")
    if not binned and original and binning:
        binned = original * binning
    if not voxel_um or not source_axis or not source_detector:
        return binned or None
    magnified = voxel_um / 1e3 * source_detector / source_axis
    if binned and abs(magnified / binned - 1) > ALIKE:
        logger.warning(
            "%s: the voxel size makes pixels of %.5g mm, and the pixel size is written as %.5g mm: the first is taken; "
            "if it is wrong, set geometry.pixel_mm",
            folder / SETTINGS_NAME,
            magnified,
            binned,
        )
    return magnified


def _region_offset_mm(written: Mapping[str, str]) -> tuple[float | None, float | None]:
    """Return how far the centre of the detector's region lies from its own, along u and v."""
    region = [int(number) for number in re.findall(r"\d+", written.get("roi (ltrb)", ""))]
    if len(region) != 4:
        return None, None
    left, top, right, bottom = region
    columns, rows = SENSOR
    u, v = (left + right) / 2 - (columns - 1) / 2, (top + bottom) / 2 - (rows - 1) / 2
    return u * SENSOR_PIXEL_MM or None, v * SENSOR_PIXEL_MM or None
