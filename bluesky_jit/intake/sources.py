"""Read stored scans: Data Exchange and NeXus (NXtomo) files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bluesky_jit.intake.angle_unit import require_radians
from bluesky_jit.intake.dialects import ANGLE_SCALES
from bluesky_jit.intake.frames import as_counts
from bluesky_jit.messages import FrameKind, ProjectionBlock

IMAGE_KEYS: dict[int, FrameKind] = {0: "projection", 1: "flat", 2: "dark"}
"""NXtomo's image_key; 3 means invalid."""
KINDS: tuple[FrameKind, ...] = ("dark", "flat", "projection")
"""In the order in which reconstruction wants them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredScan:
    """Point at the frames of a stored scan, by kind, in the order they were taken.

    rows: for each kind, the dataset's name and its row numbers; angles_rad: one for each projection; taken_after: for
    darks and flats, how many projections had been taken before each, where the file says (Data Exchange does not).
    """

    path: Path
    layout: str
    rows: dict[FrameKind, tuple[str, np.ndarray]]
    angles_rad: np.ndarray
    frame_shape: tuple[int, int]
    taken_after: dict[FrameKind, np.ndarray] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def tomo(self) -> Mapping[str, Any]:
        """Return what a run would say of its set-up: these files hold none of it that is read."""
        return {}

    @property
    def n_projections(self) -> int:
        return len(self.angles_rad)

    def blocks(self, *, size: int = 64, kinds: tuple[FrameKind, ...] = KINDS) -> Iterator[ProjectionBlock]:
        """Yield all darks, all flats and then projections, in blocks of at most `size` frames taken together."""
        for kind in kinds:
            n = len(self.rows[kind][1]) if kind in self.rows else 0
            for first, end in taken_together(self.taken_after.get(kind, np.zeros(n)), n):
                yield from self._part(kind, first, end, size)

    def blocks_as_taken(self, *, size: int = 64) -> Iterator[ProjectionBlock]:
        """Yield the same blocks in the order in which frames were taken, as far as the file says.

        But darks or flats that were taken once only come first, for without them nothing can be shown.
        """
        done = 0
        once = {kind for kind, after in self.taken_after.items() if len(np.unique(after)) == 1}
        others = [
            (0 if block.after is None or block.kind in once else block.after, block)
            for block in self.blocks(size=size, kinds=("dark", "flat"))
        ]
        for place, block in sorted(others, key=lambda item: item[0]):
            yield from self._part("projection", done, place, size)
            done = max(done, place)
            yield block
        yield from self._part("projection", done, self.n_projections, size)

    def _part(self, kind: FrameKind, first: int, end: int, size: int) -> Iterator[ProjectionBlock]:
        """Yield frames first to end of a kind; nothing where there are none."""
        name, rows = self.rows.get(kind, ("", np.arange(0)))
        with h5py.File(self.path, "r") as file:
            for start in range(first, end, size):
                yield self._block(file[name], kind, rows[start : min(start + size, end)], start)

    def _block(self, dataset: Any, kind: FrameKind, rows: np.ndarray, first: int) -> ProjectionBlock:
        n = len(rows)
        after = self.taken_after.get(kind)
        numbers = np.arange(first, first + n)
        return ProjectionBlock(
            run_uid=str(self.path),
            kind=kind,
            counts=as_counts(dataset[rows], kind),
            acquisition=numbers,
            unique_ids=numbers,
            frame_times_s=np.full(n, np.nan),
            received_times_s=np.full(n, np.nan),
            angles_rad=self.angles_rad[first : first + n] if kind == "projection" else np.full(n, np.nan),
            angle_source="frame attribute",
            after=None if after is None else int(after[first]),
        )


def taken_together(after: np.ndarray, n: int) -> Iterator[tuple[int, int]]:
    """Yield the first and the end of each series of n frames with no projection between them; after: (n,)."""
    edges = np.flatnonzero(np.diff(after)) + 1
    yield from pairwise([0, *edges.tolist(), n])


def open_scan(path: str | Path) -> StoredScan:
    """Find the frames and angles of a Data Exchange or NXtomo file."""
    path = Path(path)
    try:
        file = h5py.File(path, "r")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist: check the path") from None
    except OSError as error:
        raise ValueError(f"{path} is no HDF5 file: {error}") from error
    with file:
        if "exchange/data" in file:
            scan = _data_exchange(path, file)
        elif (tomo := _find_nxtomo(file)) is not None:
            scan = _nxtomo(path, file, tomo)
        else:
            raise ValueError(
                f"{path} is neither Data Exchange (no /exchange/data) nor NXtomo (no image_key): its layout is not "
                "known here"
            )
    require_radians(scan.angles_rad, str(path))
    return scan


def _data_exchange(path: Path, file: h5py.File) -> StoredScan:
    data: Any = file["exchange/data"]
    rows: dict[FrameKind, tuple[str, np.ndarray]] = {"projection": ("exchange/data", np.arange(len(data)))}
    names: dict[FrameKind, str] = {"dark": "exchange/data_dark", "flat": "exchange/data_white"}
    for kind, name in names.items():
        if name in file:
            frames: Any = file[name]
            rows[kind] = (name, np.arange(len(frames)))
    if "exchange/theta" not in file:
        raise ValueError(
            f"{path} has no /exchange/theta: its projections cannot be placed; add their angles in degrees"
        )
    theta: Any = file["exchange/theta"]
    angles = np.asarray(theta[()], dtype=np.float64) * _unit_scale(theta)
    if len(angles) != len(data):
        raise ValueError(f"{path} has {len(data)} projections and {len(angles)} angles: they must be as many")
    return StoredScan(
        path=path, layout="Data Exchange", rows=rows, angles_rad=angles, frame_shape=tuple(data.shape[1:])
    )


def _find_nxtomo(file: h5py.File) -> str | None:
    """Return the group that holds data, image_key and rotation_angle of a NeXus tomography entry."""
    found: list[str] = []

    def look(name: str, node: Any) -> None:
        if isinstance(node, h5py.Group) and "image_key" in node and ("data" in node or "rotation_angle" in node):
            found.append(name)

    file.visititems(look)
    with_data = [name for name in found if f"{name}/data" in file]
    return min(with_data or found, key=len, default=None)


def _nxtomo(path: Path, file: h5py.File, group: str) -> StoredScan:
    image_key: Any = file[f"{group}/image_key"]
    keys = np.asarray(image_key[()]).astype(np.int64).ravel()
    data = file.get(f"{group}/data")
    if not isinstance(data, h5py.Dataset):
        raise ValueError(f"{path} has image keys in {group} but no images beside them{_missing_link(file, group)}")
    angle = _nxtomo_angle(file, group)
    if angle is None:
        raise ValueError(
            f"{path} has no rotation_angle beside {group} or in the sample: its projections cannot be placed"
        )
    angles = np.asarray(angle[()], dtype=np.float64).ravel() * _unit_scale(angle)
    if not len(keys) == len(angles) == len(data):
        raise ValueError(
            f"{path} has {len(data)} frames, {len(keys)} image keys and {len(angles)} angles: they must be as many"
        )
    rows: dict[FrameKind, tuple[str, np.ndarray]] = {
        kind: (f"{group}/data", np.flatnonzero(keys == key)) for key, kind in IMAGE_KEYS.items() if (keys == key).any()
    }
    if "projection" not in rows:
        raise ValueError(f"{path} has no projections: no image_key is 0")
    return StoredScan(
        path=path,
        layout="NXtomo",
        rows=rows,
        angles_rad=angles[keys == 0],
        frame_shape=tuple(int(n) for n in data.shape[1:]),  # type: ignore[arg-type]
        taken_after={
            kind: np.searchsorted(rows["projection"][1], rows[kind][1]) for kind in rows if kind != "projection"
        },
    )


def _missing_link(file: h5py.File, group: str) -> str:
    link = file.get(f"{group}/data", getlink=True)
    if isinstance(link, h5py.ExternalLink):
        return f": they are in {link.filename}, which is missing; copy it to that place beside this file"
    return ": it may be a record of the scan without its images"


def _nxtomo_angle(file: h5py.File, group: str) -> h5py.Dataset | None:
    entry = group.split("/")[0]
    for name in (
        f"{group}/rotation_angle",
        f"{entry}/sample/rotation_angle",
        f"{entry}/tomo_entry/sample/rotation_angle",
    ):
        node = file.get(name)
        if isinstance(node, h5py.Dataset):
            return node
    return None


def _unit_scale(dataset: Any) -> float:
    unit = dataset.attrs.get("units", "deg")
    unit = unit.decode() if isinstance(unit, bytes) else str(unit)
    return ANGLE_SCALES.get(unit.strip().lower(), math.pi / 180)
