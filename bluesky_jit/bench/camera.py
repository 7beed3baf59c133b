"""A camera that costs little: frames rendered beforehand go to a file at a given rate, and documents tell of them.

It is a process of its own, as a detector's computer is, so that what a session is charged is not mixed up with it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import psutil

from bluesky_jit.messages import FrameKind
from bluesky_jit.tomo.geometry import ConeGeometry

if TYPE_CHECKING:
    from sim_devices.shot_noise import ShotNoise

READY_S = 120.0
"""Rendering a turn of the paper's detector takes some ten seconds, and several times that where cores are busy."""
LISTENER_S = 30.0
SPARE_S = 60.0
"""Beyond the time that frames take, the parent waits so long for an answer."""
BLANKS = 10
"""Darks and flats of a run, as many as the plans' default."""
RUNS_KEPT = 2
"""Runs whose files are kept: a session may still read the one before."""
PHANTOM_S = 10.0
"""When the sample is as it is shown; the bubbles have risen."""
STREAMS: dict[FrameKind, str] = {"dark": "darks", "flat": "flats", "projection": "primary"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayedScan:
    """Describe what is played: a turn of a sample at rest, again and again, each time with noise of its own.

    announce_s: between two documents' rows.
    """

    geometry: ConeGeometry
    angles_per_turn: int
    exposure_s: float
    announce_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """Say when frames were complete (their time stamps, float64 (n,), in Unix seconds), and the rate that was asked."""

    times_s: np.ndarray
    rate_hz: float

    @property
    def reached_hz(self) -> float:
        """Return the rate that the camera reached."""
        return (len(self.times_s) - 1) / float(self.times_s[-1] - self.times_s[0]) if len(self.times_s) > 1 else 0.0


class Camera:
    """Play runs in a process of its own: `begin`, `play` at any rates, `end`."""

    def __init__(self, scan: PlayedScan, folder: Path, address: str) -> None:
        """Make a camera that writes into a folder and sends its documents to an address."""
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, scan, folder, address), daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        self._answer(READY_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.join(SPARE_S)

    @property
    def cpu_s(self) -> float:
        """Return the CPU seconds that the camera has taken."""
        times = psutil.Process(self._process.pid).cpu_times()
        return times.user + times.system

    def begin(self) -> str:
        """Begin a run with its darks and flats; return its uid."""
        return self._ask("begin")

    def play(self, *, rate_hz: float, seconds: float) -> Played:
        """Take projections for so long; return when they have been taken."""
        return self._ask("play", rate_hz, seconds, timeout_s=seconds + SPARE_S)

    def end(self) -> int:
        """End the run; return how many projections it had."""
        return self._ask("end")

    def _ask(self, *request: Any, timeout_s: float = SPARE_S) -> Any:
        self._pipe.send(request)
        return self._answer(timeout_s)

    def _answer(self, timeout_s: float) -> Any:
        if not self._pipe.poll(timeout_s):
            raise TimeoutError(f"the benchmark's camera did not answer within {timeout_s:g} s")
        try:
            answer = self._pipe.recv()
        except EOFError:
            raise RuntimeError("the benchmark's camera has ended: see what it wrote above") from None
        if isinstance(answer, Exception):
            raise RuntimeError(f"the benchmark's camera failed: {answer}") from answer
        return answer


def _serve(pipe: Connection, scan: PlayedScan, folder: Path, address: str) -> None:
    """Answer requests until the process is ended."""
    from bluesky_jit.intake.wire import DocumentPublisher

    publisher = DocumentPublisher(address)
    recorder = _Recorder(scan, folder, publisher)
    if not publisher.wait_for_listener(LISTENER_S):
        raise RuntimeError(f"nobody listens for documents at {address}: see the log of `bluesky-jit serve`")
    pipe.send("ready")
    answers = {"begin": recorder.begin, "play": recorder.play, "end": recorder.end}
    while True:
        name, *arguments = pipe.recv()
        try:
            pipe.send(answers[name](*arguments))
        except Exception as error:  # noqa: BLE001 - it is told where it was asked
            pipe.send(error)


class _Recorder:
    """Write runs as the simulated camera and its plan do: a file and a stream each for darks, flats and projections."""

    def __init__(self, scan: PlayedScan, folder: Path, emit: Any) -> None:
        self._scan, self._folder, self._emit = scan, folder, emit
        self._frames, self._noise = rendered(scan)
        self._runs = 0
        self._files: list[Path] = []
        self._series: _Series | None = None
        self._run: Any = None

    def begin(self) -> str:
        from event_model import compose_run

        scan, geometry = self._scan, self._scan.geometry
        tomo = geometry.to_metadata() | {
            "geometry": geometry.kind,
            "angle_key": "camera_angle",
            "n_angles_per_rotation": scan.angles_per_turn,
            "exposure_s": scan.exposure_s,
            "scan_mode": "sequential",
        }
        self._runs += 1
        metadata = {"plan_name": "bench", "scan_id": self._runs, "tomo": tomo}
        self._run = compose_run(metadata=metadata)
        self._emit("start", self._run.start_doc)
        while len(self._files) >= RUNS_KEPT * len(STREAMS):
            self._files.pop(0).unlink()
        for kind in ("dark", "flat"):
            blanks = self._begin_series(kind)
            for _ in range(BLANKS):
                blanks.take(self._noise.on(self._frames[kind][0]), 0.0)
            blanks.close()
        self._series = self._begin_series("projection")
        return str(self._run.start_doc["uid"])

    def play(self, rate_hz: float, seconds: float) -> Played:
        if self._series is None:
            raise RuntimeError("there is no run: begin one")
        counts, per_turn = self._frames["projection"], self._scan.angles_per_turn
        times_s: list[float] = []
        until = time.monotonic() + seconds
        # Where cores are so busy that it cannot keep the rate, it takes fewer frames and not longer.
        while not times_s or (len(times_s) < round(rate_hz * seconds) and time.monotonic() < until):
            number = self._series.taken
            # A camera that cannot keep the rate takes its frames later; it does not take several at once.
            self._series.wait(1 / rate_hz)
            times_s.append(self._series.take(self._noise.on(counts[number % per_turn]), 360 * number / per_turn))
        self._series.tell()
        return Played(times_s=np.array(times_s), rate_hz=rate_hz)

    def end(self) -> int:
        if self._series is None:
            raise RuntimeError("there is no run to end: begin one")
        self._series.close()
        taken, self._series = self._series.taken, None
        self._emit("stop", self._run.compose_stop())
        return taken

    def _begin_series(self, kind: FrameKind) -> _Series:
        self._files.append(self._folder / f"run-{self._runs}-{kind}.h5")
        return _Series(self._scan, self._files[-1], self._run, kind, self._emit)


class _Series:
    """Write one stream's frames to its file, and tell of them every so often."""

    def __init__(self, scan: PlayedScan, path: Path, run: Any, kind: FrameKind, emit: Any) -> None:
        from bluesky_jit.beamline.writer import Column, StreamFile
        from sim_devices.frame import FrameType
        from sim_devices.hdf5_plugin import FrameFile

        shape, attributes = (scan.geometry.n_v, scan.geometry.n_u), "/entry/instrument/NDAttributes/"
        columns = (
            Column(key="camera", dataset="/entry/data/data", dtype_numpy="<u2", shape=shape, chunk=(1, *shape)),
            Column(key="camera_angle", dataset=attributes + "Angle", dtype_numpy="<f8", units="deg"),
            Column(key="camera_unique_id", dataset=attributes + "NDArrayUniqueId", dtype_numpy="<i4"),
            Column(key="camera_time", dataset=attributes + "NDArrayTimeStamp", dtype_numpy="<f8", units="s"),
        )
        data_keys = {column.key: column.to_data_key("bench") for column in columns}
        self._descriptor = run.compose_descriptor(name=STREAMS[kind], data_keys=data_keys).descriptor_doc
        emit("descriptor", self._descriptor)
        self._run_uid, self._emit = run.start_doc["uid"], emit
        self._file, self._frame_type = FrameFile(path, shape, swmr=True), FrameType[kind.upper()]
        self._announced = StreamFile(str(path), columns, swmr=True)
        self._announce_s, self._told_s = scan.announce_s, time.monotonic()
        self._due_s = 0.0

    @property
    def taken(self) -> int:
        return self._file.frames

    def wait(self, period_s: float) -> None:
        """Wait until the next frame is due."""
        now_s = time.monotonic()
        self._due_s = max(self._due_s + period_s, now_s - period_s)
        time.sleep(max(0.0, self._due_s - now_s))

    def take(self, counts: np.ndarray, angle_deg: float) -> float:
        """Write a frame; return its time stamp."""
        from sim_devices.frame import Frame

        time_s = time.time()
        self._file.append(
            Frame(
                counts=counts,
                unique_id=self.taken + 1,
                time_s=time_s,
                angle_deg=angle_deg,
                frame_type=self._frame_type,
                phantom_time_s=PHANTOM_S,
            )
        )
        if time.monotonic() - self._told_s >= self._announce_s:
            self.tell()
        return time_s

    def close(self) -> None:
        """Tell of the last frames, and close the file."""
        self.tell()
        self._file.close()

    def tell(self) -> None:
        """Send documents about the frames that are new."""
        self._told_s = time.monotonic()
        for name, document in self._documents():
            self._emit(name, document)

    def _documents(self) -> Iterator[tuple[str, Any]]:
        """Yield new documents with what a RunEngine fills in."""
        for name, document in self._announced.documents(self._file.frames):
            if name == "stream_resource":
                yield name, {**document, "run_start": self._run_uid}
            else:
                yield name, {**document, "descriptor": self._descriptor["uid"]}


def rendered(scan: PlayedScan) -> tuple[dict[FrameKind, np.ndarray], ShotNoise]:
    """Render what a dark, a flat and a turn of projections of the simulated jar read on average, and its noise.

    Frames: uint16 (n, n_v, n_u). With the same noise in every turn a network would learn the noise.
    """
    from sim_devices.phantom import experiment
    from sim_devices.physics import Detector, DetectorPhysics
    from sim_devices.shot_noise import ShotNoise

    geometry, physics = scan.geometry, DetectorPhysics()
    radius_mm, half_height_mm = geometry.cylinder_mm
    phantom = experiment("A", seed=0, radius_mm=radius_mm, half_height_mm=half_height_mm)
    detector = Detector(physics, geometry.n_v, geometry.n_u)

    def expose(line_integrals: np.ndarray | None) -> np.ndarray:
        beam = line_integrals is not None
        return detector.expose(line_integrals, time_s=0.0, beam=beam, exposure_s=scan.exposure_s, noise=False)

    angles_rad = 2 * np.pi * np.arange(scan.angles_per_turn) / scan.angles_per_turn
    frames: dict[FrameKind, np.ndarray] = {
        "dark": expose(None)[np.newaxis],
        "flat": expose(np.zeros(detector.shape))[np.newaxis],
        "projection": np.stack([expose(phantom.line_integrals(geometry, a, PHANTOM_S)) for a in angles_rad.tolist()]),
    }
    return frames, ShotNoise(physics, exposure_s=scan.exposure_s)
