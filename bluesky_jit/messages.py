"""Every value that crosses from one room to another: the glossary, in code. All of them are frozen and pickle."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from bluesky_jit.tomo.geometry import Geometry
from bluesky_jit.tomo.grid import Grid

FrameKind = Literal["dark", "flat", "projection"]
AngleSource = Literal["frame attribute", "same stream", "monitored stream", "plan arguments"]
ImageKind = Literal["raw", "denoised", "preview", "residual", "analysis", "doubt", "segmentation"]
Severity = Literal["NO_ALARM", "MINOR", "MAJOR", "INVALID"]


# ── from the run to the session ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStart:
    """Say that a tomography run has begun; `tomo` is the metadata block of its start document."""

    run_uid: str
    scan_id: int
    plan_name: str
    time_s: float
    tomo: dict[str, Any]
    expected_projections: int | None = None
    """How many projections the plan is to bring, when it says so (the start document's num_points)."""
    caught_up: bool = False
    """Its beginning came late, from a record or sent again: there were frames of it before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStop:
    """Say that a run has ended; exit_status is bluesky's: success, abort or fail."""

    run_uid: str
    time_s: float
    exit_status: str
    reason: str = ""
    unlocated: Mapping[FrameKind, int] = field(default_factory=dict)
    """Frames that documents announced without ever saying where they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InlineFrames:
    """Carry frames that came inside events, or by pvAccess straight from the detector (`tapped`).

    counts: (n, n_v, n_u); unique_ids: int64 (n,); frame_times_s: float64 (n,), the detector's, in Unix seconds;
    angles_rad: float64 (n,), or None for darks and flats.
    """

    run_uid: str
    kind: FrameKind
    counts: np.ndarray
    unique_ids: np.ndarray
    frame_times_s: np.ndarray
    angles_rad: np.ndarray | None
    angle_source: AngleSource
    tapped: bool = False
    awaits_documents: bool = False
    """A tapped frame that does not say what it is, or at what angle: documents will, and it waits for them."""
    numbered: bool = True
    """Whether unique_ids are the detector's; otherwise they count the stream's rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Name a column of a run's record in Tiled, and its row that an asset's first row is."""

    stream: str
    key: str
    first: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """Name rows [first, first + count) of a dataset in a file."""

    uri: str
    dataset: str
    first: int
    count: int
    swmr: bool
    nanoseconds: str = ""
    """Dataset of what is to be added to whole seconds, in 1e-9 s."""
    rows: int | None = None
    """How many rows the dataset must have, when rows and frames could not be paired otherwise."""
    record: Record | None = None
    """Where the same rows are in Tiled, for those whose file is not on this machine."""

    def part(self, first: int, count: int) -> Asset:
        """Return the asset of `count` of its rows from `first` on."""
        record = None if self.record is None else replace(self.record, first=self.record.first + first)
        return replace(self, first=self.first + first, count=count, record=record)


@dataclass(frozen=True, slots=True, kw_only=True)
class AngleTrack:
    """Tell a monitored stage's angle between its samples.

    times_s: float64 (n,), ascending, in Unix seconds; angles_rad: float64 (n,); delay_s: added to a frame's time stamp.
    """

    times_s: np.ndarray
    angles_rad: np.ndarray
    delay_s: float = 0.0

    def at(self, times_s: np.ndarray) -> np.ndarray:
        """Return the angles at times (m,); NaN before the first sample and after the last one."""
        if not len(self.times_s):
            return np.full(len(times_s), np.nan)
        # A stage that begins each turn at 0 again has not turned back.
        continued = np.unwrap(self.angles_rad)
        return np.interp(times_s + self.delay_s, self.times_s, continued, left=np.nan, right=np.nan)


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetFrames:
    """Point at frames in a file. An angle, id or time that the file does not hold is None."""

    run_uid: str
    kind: FrameKind
    image: Asset
    angle: Asset | None
    unique_id: Asset | None
    frame_time: Asset | None
    angle_scale: float
    """Turns the recorded angle into radians (degrees: pi / 180)."""
    angles_rad: np.ndarray | None
    """Angles that came with the documents instead of in the file."""
    angle_source: AngleSource
    document_time_s: float
    angle_track: AngleTrack | None = None
    """Angles of a monitored stage, to be looked up at the frames' time stamps."""


FrameMessage = InlineFrames | AssetFrames


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionBlock:
    """Carry frames of one kind with everything that is known of each of them.

    counts: uint16 (n, n_v, n_u) raw detector counts; acquisition: int64 (n,), the number of each projection in its run
    from 0 on (what splits go by; a lost frame leaves a gap); unique_ids: int64 (n,), as the detector counted;
    frame_times_s: the detector's time stamps and received_times_s: ours, both in Unix seconds; angles_rad: float64
    (n,), NaN for darks and flats; flats: which flats apply ("this run", "run 3f2a…", "run 3f2a… (borrowed)",
    "estimated", "none"); after: how many projections had been taken before these darks or flats, None for as many as
    have come.
    """

    run_uid: str
    kind: FrameKind
    counts: np.ndarray
    acquisition: np.ndarray
    unique_ids: np.ndarray
    frame_times_s: np.ndarray
    received_times_s: np.ndarray
    angles_rad: np.ndarray
    angle_source: AngleSource
    flats: str = "this run"
    after: int | None = None

    def __len__(self) -> int:
        return len(self.counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Tell people what went wrong in one sentence: what, and what to do."""

    text: str
    severity: Severity = "MINOR"
    run_uid: str = ""
    lasts: str = ""
    """What it is about that outlasts runs: it is told until one of this name comes with NO_ALARM."""


RunMessage = RunStart | RunStop | InlineFrames | AssetFrames | Problem


# ── between reconstruction and learning ──────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Carry Noise2Inverse training pairs: two views of the same patches made from different projections.

    u, v: float32 (n, nt, nz, ny, nx) in 1/mm; nt and nz are odd (1 for plain 2-D) and the network predicts the middle.
    """

    u: np.ndarray
    v: np.ndarray

    def __len__(self) -> int:
        return len(self.u)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnglesUsed:
    """Say which projections an image was made of."""

    count: int
    first_id: int
    last_id: int
    arc_rad: float
    source: AngleSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """Say how far the denoiser is.

    Accuracies (1: no denoising, 0.5: ideal), NaN until known: `accuracy` of pairs not yet trained on, `held_out`
    of a region never trained on, `unseen` of patches and `whole_slice` of the worst slice on show, both of projections
    none of which had been trained on. residual_variance: of what the denoiser takes away, over that of the noise;
    residual_correlation: of that with the denoised slice; residual_verdict: what they mean, in words. drift: how much
    the accuracy of new pairs worsens in a minute; jumps: how often the data changed abruptly; refused: steps that would
    have spoilt the weights; pairs_per_s: pairs made, samples_per_s: pairs trained on; chosen: what preset "auto" chose,
    and why.
    """

    step: int = 0
    loss: float = math.nan
    accuracy: float = math.nan
    held_out: float = math.nan
    unseen: float = math.nan
    whole_slice: float = math.nan
    residual_variance: float = math.nan
    residual_correlation: float = math.nan
    residual_verdict: str = ""
    drift: float = math.nan
    jumps: int = 0
    refused: int = 0
    ready: bool = False
    reason: str = "waiting for projections"
    preset: str = ""
    chosen: str = ""
    pairs: int = 0
    buffered: int = 0
    picks_per_pair: float = math.nan
    pairs_per_s: float = 0.0
    samples_per_s: float = 0.0
    steps_per_s: float = 0.0
    paused: bool = False


# ── from the session to the world ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """Publish one image with what it was made of. Raw and denoised of one update share `number`.

    image: float32 (nz, ny, nx) in 1/mm (class labels for "analysis", probabilities for "segmentation", and for "doubt"
    how much larger than the noise the residual is); frame_time_s: time stamp of the newest projection
    in it; made_time_s: when it was ready; weights_step: training steps behind the weights used (0 for raw);
    axis_offset_mm: lab x of the rotation axis that it was made with.
    """

    run_uid: str
    number: int
    slice_name: str
    kind: ImageKind
    grid: Grid
    image: np.ndarray
    angles: AnglesUsed
    turn: int
    flats: str
    frame_time_s: float
    made_time_s: float
    axis_offset_mm: float = 0.0
    preset: str = ""
    weights_step: int = 0
    accuracy: float = math.nan
    ready: bool = False

    @property
    def latency_ms(self) -> float:
        return (self.made_time_s - self.frame_time_s) * 1e3


@dataclass(frozen=True, slots=True, kw_only=True)
class Shed:
    """Count what a session has left undone, so that frames are used as they come."""

    updates: int = 0
    pairs: int = 0
    steps: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStatus:
    """Publish the scalars: what the session is doing and how well."""

    time_s: float
    on_show: bool = True
    """False: of a run that is not on show, for its record only."""
    state: Literal["idle", "running", "stale", "failed"] = "idle"
    run_uid: str = ""
    scan_id: int = 0
    frames_received: int = 0
    frames_lost: int = 0
    """Never used, and never to be; frames_missing: these, and those that may still come."""
    frames_missing: int = 0
    frames_late: int = 0
    frames_duplicate: int = 0
    frames_corrupt: int = 0
    frames_tapped: int = 0
    frames_backfilled: int = 0
    backlog: int = 0
    """Frames, of all runs, that have come or were announced and wait to be used."""
    lag_s: float = 0.0
    """How long the oldest of those that could be used has waited."""
    shed: Shed = field(default_factory=Shed)
    darks: int = 0
    flats: int = 0
    projections: int = 0
    turns: float = 0.0
    window: int = 0
    update: int = 0
    updates_per_s: float = 0.0
    recon_time_ms: float = math.nan
    latency_ms: float = math.nan
    clipped_fraction: float = 0.0
    zingers_per_frame: float = 0.0
    beam_level: float = math.nan
    """The newest projection's beam, as part of the flats'."""
    axis_offset_mm: float = 0.0
    axis_estimate_mm: float = math.nan
    axis_column: float = math.nan
    axis_confidence: float = 0.0
    axis_reason: str = ""
    angle_source: str = ""
    flats_used: str = ""
    """Which flats projections are compared with: as an Update's."""
    learning: Learning = field(default_factory=Learning)
    message: str = ""
    severity: Severity = "NO_ALARM"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOpened:
    """Tell the sinks that a run is being reconstructed, and how.

    corrections: those made, with their values; on_show: whether people see this run from now on.
    """

    start: RunStart
    geometry: Geometry
    settings: dict[str, Any]
    corrections: dict[str, Any] = field(default_factory=dict)
    on_show: bool = True


SinkMessage = RunOpened | Update | SessionStatus | RunStop


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """Carry a request of a person or plan back to the session: a control's name in the PV table, and its new value."""

    name: str
    value: Any
