"""The PV table: the one list that CA, PVA, the ophyd device and docs/reference/pvs.md are all made from."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, Literal, NamedTuple

from bluesky_jit.messages import RunOpened, SessionStatus, Severity, Update

SLICES = ("XY", "XZ", "YZ")
SILENCE_S = 5.0
"""After so many seconds without a word from the session, the servers themselves say that it is gone."""

RowKind = Literal["image", "scalar", "control"]
RowType = Literal["float", "int", "bool", "str", "text", "image"]
Source = str | Callable[[SessionStatus, RunOpened | None], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Describe one line of the table: an image, a scalar, or a control.

    type: `str` holds up to 39 characters, `text` up to 255. source: where the value is read from, an attribute path of
    SessionStatus or a function of it and the run; empty for images and for controls that keep what was written.
    limits: lowest and highest value that a control takes before a run narrows them. warn_above: MINOR alarm above it.
    rule: `live` values are MINOR when stale and INVALID when the session has failed, `message` follows the status,
    `running` is MAJOR when the session has failed. momentary: falls back to 0 after each write.
    """

    name: str
    kind: RowKind
    type: RowType
    help: str
    source: Source = ""
    units: str = ""
    limits: tuple[float, float] | None = None
    precision: int = 3
    warn_above: float | None = None
    rule: Literal["live", "message", "running", "none"] = "live"
    momentary: bool = False

    @property
    def writable(self) -> bool:
        return self.kind == "control"


class Reading(NamedTuple):
    """Hold what a scalar or control shows now."""

    value: Any
    severity: Severity


class ImageField(NamedTuple):
    """Describe one CA PV of an image, in areaDetector's `image1:` layout."""

    suffix: str
    type: RowType | Literal["colour", "dtype"]
    help: str


IMAGE_FIELDS = (
    ImageField("ArrayData", "image", "pixels, float32, columns fastest"),
    ImageField("ArraySize0_RBV", "int", "columns"),
    ImageField("ArraySize1_RBV", "int", "rows"),
    ImageField("ArraySize2_RBV", "int", "planes; 1 for a slice, as ophyd's ImagePlugin.image needs it"),
    ImageField("NDimensions_RBV", "int", "always 3"),
    ImageField("ColorMode_RBV", "colour", "always Mono"),
    ImageField("DataType_RBV", "dtype", "always Float32 (8)"),
    ImageField("ArrayCounter_RBV", "int", "images posted since the start; written last"),
    ImageField("UniqueId_RBV", "int", "update number: raw and denoised with the same one belong together"),
    ImageField("TimeStamp_RBV", "float", "detector time of the newest projection used, seconds since 1970"),
    ImageField("PluginType_RBV", "str", "NDPluginStdArrays, as stock clients expect"),
    ImageField("PortName_RBV", "str", "name of the image"),
    ImageField("Binning_RBV", "int", "points averaged each way to fit ArrayData (1: full size)"),
)
PVA_IMAGE = "Image"
IMAGE_ATTRIBUTES = (
    ("RunUid", "uid of the raw run"),
    ("Update", "update number"),
    ("Slice", "name of the slice"),
    ("Kind", "raw, denoised, preview, residual, analysis, doubt or segmentation"),
    ("Grid", "JSON: origin and z, y and x steps in mm, shape"),
    ("AnglesUsed", "JSON: count, first_id, last_id, arc_rad, source of the projections used"),
    ("Turn", "turn of the run"),
    ("WeightsStep", "training steps behind the weights (0: raw)"),
    ("Preset", "network and recipe"),
    ("Accuracy", "accuracy of the denoiser when the image was made"),
    ("Ready", "whether the denoiser had beaten the raw slice on held-out data"),
    ("LatencyMs", "from the newest projection to the finished image"),
    ("Flats", "which flats were used"),
    ("AxisOffsetMm", "lab x of the rotation axis that the image was made with"),
)


def axis_column(status: SessionStatus, opened: RunOpened | None) -> float:
    """Return the detector column that the rotation axis projects to (NaN outside a run)."""
    if opened is None:
        return math.nan
    return opened.geometry.u_centre + status.axis_offset_mm / opened.geometry.voxel_mm


def is_running(status: SessionStatus, opened: RunOpened | None) -> bool:
    """Say whether the session is alive."""
    return status.state != "failed"


def _image(name: str, what: str) -> Row:
    return Row(name=name, kind="image", type="image", units="1/mm", help=what)


def _scalar(name: str, kind: RowType, source: Source, what: str, **rest: Any) -> Row:
    return Row(name=name, kind="scalar", type=kind, source=source, help=what, **rest)


def _control(name: str, kind: RowType, what: str, **rest: Any) -> Row:
    return Row(name=name, kind="control", type=kind, help=what, rule="none", **rest)


ROWS: tuple[Row, ...] = (
    *(_image(f"{s}:Raw", f"{s} slice as reconstructed") for s in SLICES),
    *(_image(f"{s}:Denoised", f"{s} slice denoised; only once the denoiser is ready") for s in SLICES),
    _image("Preview", "coarse volume around the axis"),
    _image("Residual", "raw minus denoised: what the denoiser took away"),
    Row(name="Doubt", kind="image", type="image", help="where the denoiser took away more, or less, than noise"),
    Row(name="Analysis", kind="image", type="image", help="class labels of the analysis"),
    Row(name="Segmentation", kind="image", type="image", help="probability of the denser of two classes"),
    _scalar("ServerRunning", "bool", is_running, "heartbeat: 1 and renewed while the session lives", rule="running"),
    _scalar("ReconTime", "float", "recon_time_ms", "time to reconstruct the shown slices", units="ms", precision=1),
    _scalar("BufferSize", "int", "window", "projections in the window"),
    _scalar("Center", "float", axis_column, "detector column of the rotation axis", units="px", precision=2),
    _scalar("AxisEstimate", "float", "axis_estimate_mm", "lab x of the axis as estimated", units="mm", precision=4),
    _scalar("AxisColumn", "float", "axis_column", "detector column of the axis as estimated", units="px", precision=2),
    _scalar("AxisConfidence", "float", "axis_confidence", "how probable it is, 0 to 1, that it is right within 0.5 px"),
    _scalar("AxisReason", "text", "axis_reason", "why the estimate is no surer"),
    _scalar("ScanId", "int", "scan_id", "scan number of the raw run"),
    _scalar("FramesReceived", "int", "frames_received", "frames of this run that arrived"),
    _scalar("FramesLost", "int", "frames_lost", "frames of this run that could never be used", warn_above=0),
    _scalar("FramesMissing", "int", "frames_missing", "frames that are not here: lost ones, and those that may come"),
    _scalar("FramesLate", "int", "frames_late", "frames that came after a newer one; they are used"),
    _scalar("FramesDuplicate", "int", "frames_duplicate", "frames that came again; the repeats are left out"),
    _scalar("FramesCorrupt", "int", "frames_corrupt", "frames that came damaged, or without angle; they are left out"),
    _scalar("FramesTapped", "int", "frames_tapped", "frames that came by pvAccess as they were made"),
    _scalar("FramesBackfilled", "int", "frames_backfilled", "frames that pvAccess lost, taken from the run's records"),
    _scalar("Backlog", "int", "backlog", "frames, of all runs, that came or were announced and wait to be used"),
    _scalar("Lag", "float", "lag_s", "how long frames have waited that could be used", units="s", warn_above=1.0),
    _scalar("Shed:Updates", "int", "shed.updates", "updates left out so that frames are used as they come"),
    _scalar("Shed:Pairs", "int", "shed.pairs", "training pairs left out for the same reason"),
    _scalar("Shed:Steps", "int", "shed.steps", "training steps left out for the same reason"),
    _scalar("Darks", "int", "darks", "darks of this run"),
    _scalar("Flats", "int", "flats", "flats of this run"),
    _scalar("Projections", "int", "projections", "projections of this run"),
    _scalar("Turns", "float", "turns", "turns of this run so far", precision=2),
    _scalar("UpdateNumber", "int", "update", "number of the latest update"),
    _scalar("UpdateRate", "float", "updates_per_s", "updates in a second", units="1/s", precision=1),
    _scalar("Latency", "float", "latency_ms", "newest projection to finished image", units="ms", precision=1),
    _scalar("Learning:Step", "int", "learning.step", "training steps so far"),
    _scalar("Learning:Loss", "float", "learning.loss", "training loss", precision=4),
    _scalar("Learning:Accuracy", "float", "learning.accuracy", "accuracy on fresh pairs (1: no denoising, 0.5: ideal)"),
    _scalar("Learning:HeldOut", "float", "learning.held_out", "accuracy on a region that is never trained on"),
    _scalar("Learning:Unseen", "float", "learning.unseen", "accuracy on projections never trained on"),
    _scalar("Learning:WholeSlice", "float", "learning.whole_slice", "the same, of the worst whole slice on show"),
    _scalar(
        "Learning:ResidualVariance", "float", "learning.residual_variance", "variance of what is taken away / noise"
    ),
    _scalar("Learning:ResidualCorrelation", "float", "learning.residual_correlation", "of it with the denoised slice"),
    _scalar("Learning:ResidualVerdict", "text", "learning.residual_verdict", "whether detail was lost or invented"),
    _scalar("Learning:Drift", "float", "learning.drift", "how much accuracy on fresh pairs worsens", units="1/min"),
    _scalar("Learning:Jumps", "int", "learning.jumps", "abrupt changes of the data in this run"),
    _scalar("Learning:Refused", "int", "learning.refused", "training steps refused: they would spoil the weights"),
    _scalar(
        "Learning:Ready",
        "bool",
        "learning.ready",
        "whether denoised slices are shown; 1 also while the reason says not to trust them",
    ),
    _scalar("Learning:Reason", "text", "learning.reason", "why the denoiser is, or is not, ready"),
    _scalar("Learning:Preset", "str", "learning.preset", "network and recipe"),
    _scalar("Learning:Chosen", "text", "learning.chosen", "what the preset `auto` chose, and why"),
    _scalar("Learning:Pairs", "int", "learning.pairs", "training pairs made so far"),
    _scalar("Learning:Buffered", "int", "learning.buffered", "pairs in the buffer"),
    _scalar("Learning:PairsPerSecond", "float", "learning.pairs_per_s", "pairs made in a second", units="1/s"),
    _scalar(
        "Learning:SamplesPerSecond", "float", "learning.samples_per_s", "pairs trained on in a second", units="1/s"
    ),
    _scalar("Learning:PicksPerPair", "float", "learning.picks_per_pair", "how often a pair is trained on", precision=1),
    _scalar("Learning:StepsPerSecond", "float", "learning.steps_per_s", "training steps in a second", units="1/s"),
    _scalar("ClippedFraction", "float", "clipped_fraction", "pixels at or below the dark level", warn_above=0.01),
    _scalar("ZingersPerFrame", "float", "zingers_per_frame", "pixels replaced as zingers in a projection, on average"),
    _scalar("BeamLevel", "float", "beam_level", "beam of the newest projection over the flats'", precision=4),
    _scalar("AngleSource", "str", "angle_source", "where the angles came from"),
    _scalar("FlatsUsed", "text", "flats_used", "this run, run … (borrowed), estimated or none"),
    _scalar("Message", "text", "message", "what went wrong last, and what to do", rule="message"),
    # Posted after all that they speak of: whoever sees a run's uid and "idle" reads what that run came to.
    _scalar("ReconStatus", "str", "state", "idle, running, stale (no new frames) or failed"),
    _scalar("RunUid", "str", "run_uid", "uid of the raw run"),
    _control("XY:Position", "float", "z of the XY slice", units="mm", limits=(-1000.0, 1000.0)),
    _control("XZ:Position", "float", "y of the XZ slice", units="mm", limits=(-1000.0, 1000.0)),
    _control("YZ:Position", "float", "x of the YZ slice", units="mm", limits=(-1000.0, 1000.0)),
    _control("Learning:Pause", "bool", "1 stops training; slices go on", source="learning.paused"),
    _control("Learning:Flush", "bool", "1 empties the buffer of pairs; the weights stay", momentary=True),
    _control("Learning:Reset", "bool", "1 starts learning afresh", momentary=True),
    _control(
        "AxisOffset",
        "float",
        "lab x of the rotation axis",
        source="axis_offset_mm",
        units="mm",
        limits=(-100.0, 100.0),
        precision=4,
    ),
)
_BY_NAME = {row.name: row for row in ROWS}


def row(name: str) -> Row:
    """Return the row of that name (without prefix)."""
    try:
        return _BY_NAME[name]
    except KeyError:
        raise KeyError(f"there is no PV {name!r} in the table; there are {', '.join(_BY_NAME)}") from None


def rows(*kinds: RowKind) -> tuple[Row, ...]:
    """Return the rows of those kinds, in the table's order."""
    return tuple(r for r in ROWS if r.kind in kinds)


def image_name(update: Update) -> str:
    """Return the name of the image row that shows an update."""
    if update.kind in ("raw", "denoised"):
        return f"{update.slice_name}:{update.kind.capitalize()}"
    return update.kind.capitalize()


def position(update: Update) -> tuple[Row, Reading] | None:
    """Return the control that an update moves, and where its slice is in mm along its normal: it follows the truth."""
    if update.kind != "raw" or update.slice_name not in SLICES:
        return None
    axis = {"XY": 2, "XZ": 1, "YZ": 0}[update.slice_name]
    # Rounded to a nanometre, so that noise in the last digit is not news.
    return _BY_NAME[f"{update.slice_name}:Position"], Reading(round(update.grid.centre[axis], 6) + 0.0, "NO_ALARM")


def ca_names(prefix: str) -> tuple[str, ...]:
    """Return the names of all PVs on Channel Access."""
    images = (f"{prefix}{r.name}:{f.suffix}" for r in rows("image") for f in IMAGE_FIELDS)
    return (*images, *(prefix + r.name for r in rows("scalar", "control")))


def pva_names(prefix: str) -> tuple[str, ...]:
    """Return the names of all PVs on pvAccess."""
    images = (f"{prefix}{r.name}:{PVA_IMAGE}" for r in rows("image"))
    return (*images, *(prefix + r.name for r in rows("scalar", "control")))


def reading(line: Row, status: SessionStatus, opened: RunOpened | None = None) -> Reading | None:
    """Return what a row shows, or None when its value does not come from the status."""
    if not line.source:
        return None
    value = attrgetter(line.source)(status) if isinstance(line.source, str) else line.source(status, opened)
    return Reading(value, _severity(line, value, status))


def _severity(line: Row, value: Any, status: SessionStatus) -> Severity:
    match line.rule:
        case "running":
            return "NO_ALARM" if value else "MAJOR"
        case "message":
            return status.severity
        case "none":
            return "NO_ALARM"
    severity = image_severity(status)
    if severity == "NO_ALARM" and line.warn_above is not None and value > line.warn_above:
        return "MINOR"
    return severity


def image_severity(status: SessionStatus) -> Severity:
    """Return how far an image on show can be trusted to be of now."""
    states: dict[str, Severity] = {"stale": "MINOR", "failed": "INVALID"}
    return states.get(status.state, "NO_ALARM")


def silent(status: SessionStatus, now_s: float) -> SessionStatus:
    """Return the status to show when nothing has been heard from the session for SILENCE_S."""
    text = f"nothing heard from the session for {SILENCE_S:g} s: look at its log and start it again"
    return replace(status, time_s=now_s, state="failed", message=text, severity="MAJOR")


def limits(line: Row, opened: RunOpened | None) -> tuple[float, float] | None:
    """Return the lowest and highest value of a control: a slice stays within what every projection of the run sees."""
    if opened is None or line.kind != "control" or not line.name.endswith(":Position"):
        return line.limits
    reach = opened.geometry.half_height_mm if line.name.startswith("XY") else opened.geometry.radius_mm
    return (-reach, reach)


def checked(line: Row, value: Any, opened: RunOpened | None) -> Any:
    """Return a value that was written to a control, in the row's type; raise ValueError when it does not fit."""
    if not line.writable:
        raise ValueError(f"{line.name} is read-only: the controls are {', '.join(r.name for r in rows('control'))}")
    if line.type == "bool":
        if value not in (0, 1):
            raise ValueError(f"{line.name} was given {value!r}: give 0 or 1")
        return bool(value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{line.name} was given {value!r}: give a number")
    span = limits(line, opened)
    if span is not None and not span[0] <= number <= span[1]:
        raise ValueError(
            f"{line.name} was given {number:g} {line.units}, outside {span[0]:g} to {span[1]:g}: give a value between"
        )
    return number


def markdown(prefix: str) -> str:
    """Return the table as docs/reference/pvs.md shows it."""
    lines = [
        "# PVs",
        "",
        "Made from `bluesky_jit/publish/table.py` by `make docs`; do not edit. The prefix is the setting",
        f"`epics.prefix`, by default `{prefix}`. Scalars and controls have the same names on CA and PVA.",
        "",
        "## Images",
        "",
        f"pvAccess: one NTNDArray each, `{prefix}XY:Raw:{PVA_IMAGE}`. Channel Access: the PVs of areaDetector's",
        f"`image1:` layout each, `{prefix}XY:Raw:ArrayData` and so on; an image larger than its ArrayData is averaged",
        "over blocks of points to fit.",
        "",
        "| image | units | what it is |",
        "|---|---|---|",
        *(f"| `{prefix}{r.name}` | {r.units} | {r.help} |" for r in rows("image")),
        "",
        "| PV of an image (CA) | what it is |",
        "|---|---|",
        *(f"| `{f.suffix}` | {f.help} |" for f in IMAGE_FIELDS),
        "",
        "| attribute of an image (PVA) | what it is |",
        "|---|---|",
        *(f"| `{name}` | {text} |" for name, text in IMAGE_ATTRIBUTES),
        "",
        "The NTNDArray's `uniqueId` is the update number, `timeStamp` when the image was made, `dataTimeStamp` the",
        "detector's time of the newest projection in it.",
        "",
        "An image is INVALID until its first update of the run; what comes of learning (Denoised, Residual, Doubt,",
        "Analysis and Segmentation) is also INVALID while the denoiser is not ready. The alarm message (PVA) says why;",
        "on CA `ArrayData` and `UniqueId_RBV` carry the alarm.",
        "",
        "## Scalars",
        "",
        "Live values are MINOR when stale and INVALID when the session has failed or has been silent for "
        f"{SILENCE_S:g} s; `ServerRunning` is then 0 and MAJOR.",
        "",
        "| PV | type | units | alarm | what it is |",
        "|---|---|---|---|---|",
        *(f"| `{prefix}{r.name}` | {r.type} | {r.units} | {_alarm_text(r)} | {r.help} |" for r in rows("scalar")),
        "",
        "## Controls",
        "",
        "Writable when the setting `epics.controls` is true. A value that does not fit is refused; `Message` says why.",
        "A control shows what is true, which after a put may be the old value.",
        "",
        "| PV | type | units | limits | what it does |",
        "|---|---|---|---|---|",
        *(f"| `{prefix}{r.name}` | {r.type} | {r.units} | {_limits_text(r)} | {r.help} |" for r in rows("control")),
        "",
    ]
    return "\n".join(lines)


def _alarm_text(line: Row) -> str:
    rules = {"live": "stale", "message": "its own", "running": "MAJOR at 0", "none": ""}
    return rules[line.rule] + (f"; MINOR above {line.warn_above:g}" if line.warn_above is not None else "")


def _limits_text(line: Row) -> str:
    if line.name.endswith(":Position"):
        return "the field of view"
    if line.momentary:
        return "falls back to 0"
    return "0, 1" if line.limits is None else f"{line.limits[0]:g} to {line.limits[1]:g}"


if __name__ == "__main__":
    sys.stdout.write(markdown("JIT:"))
