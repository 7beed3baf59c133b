"""Correct and filter all projections of a stored scan, in memory or, where they do not fit, in a scratch file."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bluesky_jit.intake.setup import corrections_of
from bluesky_jit.offline.files import require_room
from bluesky_jit.offline.scan import Scan
from bluesky_jit.settings_sections import TomoSettings
from bluesky_jit.tomo.arcs import covered_arc
from bluesky_jit.tomo.axis.estimate import AxisEstimate, axis_of_scan
from bluesky_jit.tomo.axis.rows import band_rows, bands_of
from bluesky_jit.tomo.extended import margins_of, widened
from bluesky_jit.tomo.geometry import Geometry
from bluesky_jit.tomo.jobs import Kernel, Slots
from bluesky_jit.tomo.limits import limits
from bluesky_jit.tomo.memory import require_memory
from bluesky_jit.tomo.plan import Plan, make_plan
from bluesky_jit.tomo.prepare import FrameInfo, Preparation
from bluesky_jit.tomo.redundancy import row_weight, short_scan_of
from bluesky_jit.tomo.window import quantise
from bluesky_jit.tomo.window_view import WindowView

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done and how much there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Hold a scan that can be backprojected; warnings: what limits its values, a sentence each."""

    plan: Plan
    corrections: dict[str, object]
    warnings: tuple[str, ...]


def blank_preparation(scan: Scan, geometry: Geometry, settings: TomoSettings) -> Preparation:
    """Take a scan's darks and flats; raise ValueError when it has no flats."""
    preparation = Preparation(
        geometry,
        margins=margins_of(geometry),
        filter=settings.filter,
        filter_cutoff=settings.filter_cutoff,
        corrections=corrections_of(scan.tomo, settings, ring_projections=scan.n_projections),
        saturation=settings.saturation_counts,
    )
    flats = preparation.dark_flat
    for block in scan.blocks(kinds=("dark", "flat")):
        if block.kind == "dark":
            flats.add_darks(block.counts)
        else:
            flats.add_flats(block.counts, times_s=block.frame_times_s, after=block.after or 0)
    if not flats.ready:
        raise ValueError(
            f"{scan.name} has no flats, without which attenuation cannot be known: take flats in each scan, or name "
            "the run that has them in its dark_flat_uid"
        )
    return preparation


def find_axis(
    scan: Scan, geometry: Geometry, settings: TomoSettings, kernel: Kernel, progress: Progress
) -> AxisEstimate:
    """Estimate the axis from a few rows of all projections."""
    flats = blank_preparation(scan, geometry, settings).dark_flat
    bands = bands_of(geometry)
    frames = _projections(scan, "looking for the axis", progress)
    rows = band_rows(((info, [counts[band] for band in bands]) for info, counts in frames), flats, bands)
    return axis_of_scan(rows, scan.angles_rad, geometry, kernel=kernel)


@contextmanager
def prepared_scan(
    scan: Scan, geometry: Geometry, settings: TomoSettings, *, scratch: Path, progress: Progress
) -> Iterator[Prepared]:
    """Filter all projections; scratch: folder for those that do not fit the memory."""
    preparation = blank_preparation(scan, geometry, settings)
    angles = np.unwrap(scan.angles_rad)
    numbers = np.arange(len(angles))
    arc = covered_arc(angles, geometry.period_rad)
    short_scan = short_scan_of(arc, geometry, angles, numbers, present=None, planned_rad=None, drained=True)
    slot_geometry = widened(geometry, margins_of(geometry))
    times = np.full(len(angles), np.nan)
    clipped = np.zeros(len(angles), dtype=np.float32)
    with _slots(len(angles), slot_geometry, settings.memory_gb, scratch) as slots:
        while True:
            known = preparation.revision
            for info, counts in _projections(scan, "filtering projections", progress):
                n = info.acquisition
                weight = row_weight(geometry, float(angles[n]), short_scan)
                filtered, clipped[n] = preparation.filtered(counts, info, weight)
                slots.scales[n] = quantise(filtered, slots.values[n])
                times[n] = info.time_s
            # On the way rings may have come to be known, and the first projections deserve it too.
            if preparation.revision == known:
                break
        view = WindowView(
            projections=slots,
            slots=numbers,
            serials=numbers,
            angles_rad=angles,
            acquisition=numbers,
            unique_ids=numbers,
            frame_times_s=times,
            clipped=clipped,
            each_filtered=np.ones(len(numbers), dtype=bool),
            begin=0,
            end=len(numbers),
            pushed=len(numbers),
            short_scan=short_scan,
            whole=True,
            revision=0,
        )
        plan = make_plan(view, slot_geometry, 1)
        flats = preparation.dark_flat
        yield Prepared(
            plan=plan,
            corrections=preparation.corrections.to_metadata(),
            warnings=limits(
                flats,
                preparation.found,
                plan.arc,
                len(view),
                quantitative=plan.quantitative,
                clipped_fraction=float(clipped.mean()),
                axis_tilt_rad=slot_geometry.axis_tilt_rad,
            ),
        )


def _projections(scan: Scan, doing: str, progress: Progress) -> Iterator[tuple[FrameInfo, np.ndarray]]:
    progress(doing, 0, scan.n_projections)
    for block in scan.blocks(kinds=("projection",)):
        for n, number in enumerate(block.acquisition):
            info = FrameInfo(
                angle_rad=float(block.angles_rad[n]), acquisition=int(number), time_s=float(block.frame_times_s[n])
            )
            yield info, block.counts[n]
        progress(doing, int(block.acquisition[-1]) + 1, scan.n_projections)


@contextmanager
def _slots(n: int, geometry: Geometry, memory_gb: float | None, scratch: Path) -> Iterator[Slots]:
    """Make room for n filtered projections in memory, or in a scratch file that is gone afterwards."""
    shape = (n, geometry.n_v + 2, geometry.n_u + 2)
    n_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(np.int16).itemsize
    # Nothing is written once a kernel has begun to read, so that a GPU takes each projection once not for each slab.
    known = {"scales": np.ones(n, dtype=np.float32), "versions": np.zeros(n, dtype=np.int64)}
    try:
        require_memory(n_bytes, what="keeping all filtered projections", limit_gb=memory_gb)
    except ValueError as error:
        logger.info("%s; they go to a scratch file in %s", error, scratch)
    else:
        yield Slots(values=np.zeros(shape, dtype=np.int16), **known)
        return
    require_room(scratch / "scratch", n_bytes, "the scratch file for filtered projections")
    with tempfile.TemporaryFile(dir=scratch) as file:
        file.truncate(n_bytes)
        yield Slots(values=np.memmap(file, dtype=np.int16, mode="r+", shape=shape), **known)
