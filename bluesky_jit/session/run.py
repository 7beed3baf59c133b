"""Everything that belongs to one run: its frames, its reconstruction, the slices on show and what is learned."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from bluesky_jit.intake.angle_unit import AngleUnit
from bluesky_jit.intake.frames import RunFrames
from bluesky_jit.intake.setup import (
    angles_per_turn_of,
    corrections_of,
    geometry_of,
    planned_arc_rad_of,
    window_length_of,
)
from bluesky_jit.learn.automatic import Pace
from bluesky_jit.learn.fingerprint import Fingerprint
from bluesky_jit.learn.presets import Preset
from bluesky_jit.messages import Learning, Problem, ProjectionBlock, RunStart, RunStop
from bluesky_jit.session.learning.held_out import HeldOutWindows
from bluesky_jit.session.learning.learner import Learner
from bluesky_jit.session.learning.model_files import ModelFiles
from bluesky_jit.session.learning.setup import (
    Sequences,
    first_possible,
    reach_of,
    require_frames,
    sequences_of,
)
from bluesky_jit.settings import Settings
from bluesky_jit.tomo.axis.estimate import AxisEstimate
from bluesky_jit.tomo.corrections.darkflat import DarkFlat
from bluesky_jit.tomo.corrections.wanted import Corrections
from bluesky_jit.tomo.geometry import Geometry
from bluesky_jit.tomo.grid import Grid, Vector
from bluesky_jit.tomo.jobs import Pool
from bluesky_jit.tomo.kernels import choose
from bluesky_jit.tomo.live import FilteredBackprojection
from bluesky_jit.tomo.reconstructor import Reconstructor

NORMALS: dict[str, Vector] = {"XY": (0.0, 0.0, 1.0), "XZ": (0.0, 1.0, 0.0), "YZ": (1.0, 0.0, 0.0)}
"""Along which direction each slice's position counts."""


class LiveRun:
    """Hold the state of one run. Each attribute is written by one stage only; others read it."""

    def __init__(
        self,
        start: RunStart,
        settings: Settings,
        *,
        dark_flat: DarkFlat | None = None,
        pool: Pool | None = None,
    ) -> None:
        """Begin a run.

        dark_flat: the darks and flats of another run, for as long as this one has none; pool: where the kernel's tasks
        run, by default in the thread that asks.
        """
        self.start = start
        self.settings = settings
        self.frames = RunFrames(
            start.run_uid,
            intake=settings.intake,
            tiled=settings.tiled,
            flats=lambda: self.flats,
            ended=lambda: self.stop is not None,
        )
        self.unusable_frames = 0
        self.fed_s = time.monotonic()
        """When it began, or last brought frames: written by intake."""
        self.stop: RunStop | None = None
        self.drained = False
        """No more frames will come: written by intake, as is the next one."""
        self.drained_s = 0.0
        self.closed = False
        """The last slices are on their way to the sinks: written by slices, or without that stage by intake."""
        self._dark_flat = dark_flat
        self.lent = "" if dark_flat is None else f"run {start.tomo['dark_flat_uid']}"
        """Whose darks and flats were lent; "(borrowed)" are those of a run that this one does not name."""
        self._pool = pool
        self.geometry: Geometry | None = None
        self.corrections = Corrections()
        self.reconstruction: Reconstructor | None = None
        self.learner: Learner | None = None
        self.sequences = Sequences()
        """What is kept of the projections for learning."""
        self.slices_s = 0.0
        """How long the slices on show took to reconstruct: written by slices, as are the next three."""
        self.interval_s = 0.0
        """Mean time between projections, by the detector's clock."""
        self.shown_first: tuple[int, float] | None = None
        """How many projections had come, and the newest one's time, when the first slices were made."""
        self.recorded_turns = 0
        """Turns that slices were made of while the run was not on show."""
        self.learning_problem = ""
        """Why nothing is learned in this run."""
        self.angle_source = ""
        self.axis: AxisEstimate | None = None
        """What is known of the rotation axis: written by axis, as is the next one."""
        self.axis_told = False
        """People know that the axis in use is not where it is estimated."""
        self.axis_settled = False
        """No more estimates will come: written by the session."""
        self.settled = False
        """Nor will projections be weighted anew for an estimate: written by the session."""
        self.axis_by_hand = False
        """Somebody has moved the axis: written by controls."""
        self.told: set[str] = set()
        """What intake has already said of this run."""

    @property
    def uid(self) -> str:
        return self.start.run_uid

    @property
    def turns(self) -> int:
        """Count the whole turns of projections that have come."""
        newest = self.reconstruction.newest if self.reconstruction else None
        return 0 if newest is None else (newest + 1) // self.angles_per_turn

    @property
    def has_frames(self) -> bool:
        """Tell whether it has brought any frames."""
        return self.frames.ledger.received > 0

    def stalled_for(self, seconds: float) -> bool:
        """Tell whether it has brought no frames for so long."""
        return time.monotonic() - self.fed_s > seconds

    @property
    def flats(self) -> str:
        """Say which flats are used."""
        if self.reconstruction is None or not self.reconstruction.ready:
            return "none"
        dark_flat = self.reconstruction.dark_flat
        if not dark_flat.flats_are_borrowed:
            return "this run"
        if dark_flat.flats_are_estimated:
            return "estimated"
        return self.lent

    @property
    def stand_in(self) -> str:
        """Say what is used in the place of flats that neither this run nor the one that it names has; else empty."""
        flats = self.flats
        return flats if flats == "estimated" or flats.endswith("(borrowed)") else ""

    @property
    def frames_lost(self) -> int:
        return self.frames.ledger.lost + self.unusable_frames

    def prepare(self, frame_shape: tuple[int, int]) -> None:
        """Make geometry and reconstruction, once the first frame has shown the detector's size."""
        tomo, settings = self.start.tomo, self.settings
        self.angles_per_turn = angles_per_turn_of(tomo, settings.tomo.angles_per_turn)
        self._angle_unit = AngleUnit(self.angles_per_turn, str(tomo.get("scan_mode") or "sequential"))
        geometry = geometry_of(tomo, settings.geometry, frame_shape)
        self.voxel_mm = settings.slices.voxel_mm or geometry.voxel_mm
        period = round(self.angles_per_turn * geometry.period_rad / (2 * np.pi))
        self.corrections = corrections_of(
            tomo, settings.tomo, ring_projections=min(period, self.start.expected_projections or period)
        )
        planned_arc_rad = planned_arc_rad_of(tomo, self.angles_per_turn, self.start.expected_projections)
        n_projections = window_length_of(
            settings.tomo.turns, self.angles_per_turn, geometry.period_rad, settings.tomo.window, planned_arc_rad
        )
        kernel = choose(settings.tomo.kernel, self._pool)

        def reconstruction_with(sequences: Sequences) -> FilteredBackprojection:
            return FilteredBackprojection(
                geometry,
                n_projections=n_projections,
                window=settings.tomo.window,
                planned_arc_rad=planned_arc_rad,
                memory_gb=settings.tomo.memory_gb,
                filter=settings.tomo.filter,
                filter_cutoff=settings.tomo.filter_cutoff,
                corrections=self.corrections,
                n_splits=settings.learn.splits if settings.learn.enabled else 2,
                frames=sequences.frames,
                frame_spacing=sequences.spacing,
                history=sequences.history,
                kernel=kernel,
                dark_flat=self._dark_flat,
                saturation=settings.tomo.saturation_counts,
            )

        self.sequences, reconstruction = first_possible(
            sequences_of(settings.learn, n_projections, self.start.expected_projections), reconstruction_with
        )
        # Both or neither: the other stages wait for the geometry.
        self.reconstruction, self.geometry = reconstruction, geometry

    def start_learning(self, report: Callable[[Problem], None]) -> None:
        """Make the learner; raise ValueError when there is nothing that could be learned from. Slices need none."""
        settings, geometry, reconstruction, sequences = (
            self.settings,
            self.geometry,
            self.reconstruction,
            self.sequences,
        )
        if geometry is None or reconstruction is None:
            raise RuntimeError(f"run {self.uid} was not prepared")

        def fingerprint(preset: Preset, noise: float) -> Fingerprint:
            return Fingerprint.of(
                geometry,
                preset=preset.name,
                voxel_mm=self.voxel_mm,
                noise=noise,
                exposure_s=self.start.tomo.get("exposure_s"),
                energy_kev=self.corrections.energy_kev,
                run_uid=self.uid,
            )

        require_frames(settings.learn, sequences)
        without_frames = f"presets of several time frames are left out: {sequences.too_short}"
        for text in (sequences.problem, without_frames if sequences.too_short else ""):
            if text:
                report(Problem(text=text, run_uid=self.uid))
        self.learner = Learner(
            settings.learn,
            geometry,
            self.voxel_mm,
            windows=HeldOutWindows(
                reach=reach_of(sequences, reconstruction.n_projections),
                every=settings.learn.unseen_every if sequences.history else 0,
            ),
            files=ModelFiles(
                settings.learn, self.uid, fingerprint, lambda text: report(Problem(text=text, run_uid=self.uid))
            ),
            pace=self.pace,
        )

    def learning(self, *, paused: bool) -> Learning:
        """Return what people are told of learning; before pairs can be made, what they wait for."""
        if self.learner is None or self.reconstruction is None:
            raise RuntimeError(f"nothing is learned in run {self.uid}")
        learning, newest = self.learner.learning(paused=paused), self.reconstruction.newest
        reach = reach_of(self.sequences, self.reconstruction.n_projections)
        missing = reach - (0 if newest is None else newest + 1)
        if missing <= 0 or learning.pairs:
            return learning
        waiting = f"waiting for {missing} more projections"
        return replace(learning, reason=f"learning is paused; {waiting}" if paused else waiting)

    def pace(self, pairs_per_s: float) -> Pace:
        """Return what learning has to keep up with, given how many pairs are made in a second."""
        reconstruction = self.reconstruction
        return Pace(
            updates_per_s=self.settings.slices.updates_per_s,
            slice_shapes=tuple(grid.shape[1:] for grid in self.shown_grids(dict.fromkeys(NORMALS, 0.0)).values()),
            slice_s=self.slices_s,
            pairs_per_s=pairs_per_s,
            window_s=self.interval_s * (reconstruction.n_projections if reconstruction else 0),
        )

    def borrow(self, dark_flat: DarkFlat) -> None:
        """Take the darks and flats of the run that is named, which were not all there when this one began.

        They take the place of what stood in for them. Raises ValueError when they do not fit this run's own.
        """
        if self.reconstruction is None:
            self._dark_flat = dark_flat
        else:
            self.reconstruction.borrow(dark_flat)
        self.lent = f"run {self.start.tomo['dark_flat_uid']}"

    def make_do(self, reconstruction: Reconstructor, lender: str, dark_flat: DarkFlat) -> None:
        """Take the darks and flats of a run of the same set-up until this one has its own.

        Raises ValueError when they do not fit this run's own darks.
        """
        reconstruction.borrow(dark_flat, unasked=True)
        self.lent = f"run {lender} (borrowed)"

    def decline_loan(self, frame_shape: tuple[int, int]) -> bool:
        """Do without borrowed darks and flats of another size; return whether there were any."""
        if self._dark_flat is None or self._dark_flat.shape == frame_shape:
            return False
        self._dark_flat, self.lent = None, ""
        return True

    def push(self, block: ProjectionBlock) -> None:
        """Take frames into the reconstruction; raise ValueError when they do not fit the detector."""
        geometry, reconstruction = self.geometry, self.reconstruction
        if geometry is None or reconstruction is None:
            raise RuntimeError(f"run {self.uid} was not prepared")
        if block.counts.shape[1:] != (geometry.n_v, geometry.n_u):
            raise ValueError(
                f"frames of {block.counts.shape[1]}×{block.counts.shape[2]} pixels came in a run of "
                f"{geometry.n_v}×{geometry.n_u}: they were left out; do not change the detector's region in mid-run"
            )
        self._angle_unit.check(block)
        reconstruction.push(block)
        if block.kind == "projection" and len(block):
            self.angle_source = block.angle_source

    def shown_grids(self, positions_mm: dict[str, float]) -> dict[str, Grid]:
        """Return the three orthogonal slices at the positions asked for, as large as the field of view."""
        geometry = self.geometry
        if geometry is None:
            raise RuntimeError(f"run {self.uid} was not prepared")
        size = self.settings.slices.size
        across = size or max(2, int(2 * geometry.radius_mm / self.voxel_mm))
        up = size or max(2, int(2 * geometry.half_height_mm / self.voxel_mm))
        return {
            "XY": Grid.slice_xy(z_mm=positions_mm["XY"], voxel_mm=self.voxel_mm, shape=(across, across)),
            "XZ": Grid.slice_xz(y_mm=positions_mm["XZ"], voxel_mm=self.voxel_mm, shape=(up, across)),
            "YZ": Grid.slice_yz(x_mm=positions_mm["YZ"], voxel_mm=self.voxel_mm, shape=(up, across)),
        }

    def preview_grid(self) -> Grid:
        """Return the coarse volume around the axis that covers the field of view."""
        geometry = self.geometry
        if geometry is None:
            raise RuntimeError(f"run {self.uid} was not prepared")
        return Grid.preview(geometry, self.settings.slices.preview_size)
