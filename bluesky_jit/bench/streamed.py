"""A live session fed at pace: how soon its slices are on a PV, and the largest rate that it sustains."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from bluesky_jit.beamline.series import FLUSH_S
from bluesky_jit.bench.arrivals import NOT_READY_S, Arrival, Arrivals, Delays, delays_s
from bluesky_jit.bench.camera import Camera, Played, PlayedScan
from bluesky_jit.bench.setups import ANGLES_PER_TURN, FRAME_S, SCANNER
from bluesky_jit.cli.simulated import SimulatedBeamline
from bluesky_jit.cli.watch import POLL_S, Watch
from bluesky_jit.publish import table
from bluesky_jit.tomo.geometry import ConeGeometry

SHED = tuple(row.name for row in table.rows("scalar") if row.name.startswith("Shed"))
LATE_S = 1.0
"""A session whose slices are later than this is no live one."""
GROWTH_S = 0.1
"""Frames at the end of a step may be shown so much later than at its beginning: at a rate 3 % too high, a backlog of
eight seconds grows by 0.2 s."""
REACHED = 0.95
"""Part of the rate that the camera itself must reach, for the step to count."""
CATCH_UP_S = 120.0
"""How long after a step its last frame may be shown; what is later is an error."""
START_S = 90.0
"""How long the service may take to start."""
READY_S = 240.0
"""How long until slices are denoised: some 20 s, and several times that where cores are busy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Describe what is measured: a scan, slices (points each way, and mm from one to the next), rates and times.

    rates_hz: those to be tried one after another, until one is not sustained; the first is measured in any case.
    learned: whether to wait until slices are denoised.
    """

    geometry: ConeGeometry
    angles_per_turn: int
    slice_points: int
    voxel_mm: float
    rates_hz: tuple[float, ...]
    measure_s: float
    step_s: float
    learned: bool

    @property
    def size(self) -> str:
        return f"{self.geometry.n_v}×{self.geometry.n_u}"


RATE_HZ = round(1 / FRAME_S, 1)
"""Of the paper's detector."""
PAPER = Trial(
    geometry=SCANNER,
    angles_per_turn=ANGLES_PER_TURN,
    slice_points=384,
    voxel_mm=0.25,
    rates_hz=(RATE_HZ, 100.0, 120.0, 144.0, 173.0, 207.0, 249.0),
    measure_s=30.0,
    step_s=10.0,
    learned=True,
)
"""The paper's detector, and slices of issue 5."""
SLOWER_HZ = (66.0, 53.0, 42.0, 34.0, 27.0, 20.0)
"""Tried when the paper's rate is not sustained."""
QUICK = Trial(
    geometry=ConeGeometry(n_u=64, n_v=56, pixel_mm=2.4, source_axis_mm=441.4, source_detector_mm=1069),
    angles_per_turn=40,
    slice_points=48,
    voxel_mm=2.0,
    rates_hz=(RATE_HZ, 100.0),
    measure_s=1.5,
    step_s=1.0,
    learned=False,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Say what became of the frames of one rate.

    growth_s: how much later frames were shown at the end than at the beginning (medians of thirds); lost: frames that
    the session counts as lost; cores: how many it took while frames came, the camera beside it, and all else on the
    machine; frame_ms: CPU time that the session, and the camera, took for a frame, until the last one was on show.
    """

    rate_hz: float
    reached_hz: float
    frames: int
    raw: Delays
    denoised: Delays | None
    growth_s: float
    lost: int
    shed: dict[str, float]
    updates_per_s: float
    training_per_s: float
    session_cores: float
    camera_cores: float
    other_cores: float
    session_frame_ms: float
    camera_frame_ms: float

    @property
    def shown(self) -> Delays:
        """Return the delays of what people look at: denoised slices, where there are any."""
        return self.denoised or self.raw

    @property
    def camera_kept_up(self) -> bool:
        return self.reached_hz >= REACHED * self.rate_hz

    @property
    def sustained(self) -> bool:
        """Tell whether it could go on like this: nothing lost, slices within a second, and no later than at first."""
        return not self.lost and self.growth_s <= GROWTH_S and self.shown.p95_ms <= 1e3 * LATE_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Streamed:
    """Hold what was measured: the first step is the trial's own rate, the others those tried after it.

    paused: a step at the trial's own rate while training is paused; load: averages before, between and after steps.
    """

    steps: tuple[Step, ...]
    paused: Step
    ready_after_s: float | None
    sent: int
    received: int
    load: tuple[tuple[float, float, float], ...] = field(default_factory=tuple)

    @property
    def largest_hz(self) -> float:
        """Return the largest rate that was sustained, 0 when none was."""
        return max((step.reached_hz for step in self.steps if step.sustained), default=0.0)

    @property
    def affordable_hz(self) -> float:
        """Return the rate that the machine's cores have the CPU time for, training apart."""
        return 1e3 * (psutil.cpu_count() or 1) / (self.paused.session_frame_ms + self.paused.camera_frame_ms)


def measure(trial: Trial, folder: Path) -> Streamed:
    """Run a session and a camera, and try the rates."""
    slices = {"size": trial.slice_points, "voxel_mm": trial.voxel_mm}
    with SimulatedBeamline(folder, parts=(), settings={"slices": slices}) as beamline:
        serve = beamline.serve()
        scan = PlayedScan(
            geometry=trial.geometry, angles_per_turn=trial.angles_per_turn, exposure_s=FRAME_S, announce_s=FLUSH_S
        )
        serve.wait_until_ready(START_S)
        address = beamline.settings.serve.publish_address
        with Camera(scan, beamline.frames, address) as camera, Watch(beamline.settings) as watch:
            return _Measurement(trial, camera, watch, psutil.Process(serve.pid)).run()


class _Measurement:
    """Play one run at one rate after another."""

    def __init__(self, trial: Trial, camera: Camera, watch: Watch, session: psutil.Process) -> None:
        self._trial, self._camera, self._watch, self._session = trial, camera, watch, session
        self._raw, self._denoised = Arrivals(watch, "XY:Raw"), Arrivals(watch, "XY:Denoised")

    def run(self) -> Streamed:
        uid = self._camera.begin()
        with self._raw, self._denoised:
            ready_after_s = self._warm_up()
            loads = [_load()]
            steps: list[Step] = []
            for rate_hz, seconds in rates(self._trial, steps):
                steps.append(self._step(rate_hz, seconds))
                loads.append(_load())
            self._watch.put("Learning:Pause", 1)
            paused = self._step(self._trial.rates_hz[0], self._trial.step_s)
            sent = self._camera.end()
            self._watch.wait_until_finished(uid, CATCH_UP_S)
            received = int(self._watch.values(("Projections",))["Projections"])
        return Streamed(
            steps=tuple(steps),
            paused=paused,
            ready_after_s=ready_after_s,
            sent=sent,
            received=received,
            load=tuple(loads),
        )

    def _warm_up(self) -> float | None:
        """Play until slices are on show, denoised if they are to be; return after how many seconds."""
        first_s = time.time()
        shown = self._denoised if self._trial.learned else self._raw
        while not shown.seen:
            if time.time() - first_s > READY_S:
                raise RuntimeError(f"no slices were shown within {READY_S:g} s: see the log of `bluesky-jit serve`")
            played = self._camera.play(rate_hz=self._trial.rates_hz[0], seconds=1.0)
            if self._raw.seen:
                # No backlog is to be left to the first step.
                self._wait_until_shown(played)
        return time.time() - first_s if self._trial.learned else None

    def _step(self, rate_hz: float, seconds: float) -> Step:
        before = self._counts()
        played = self._camera.play(rate_hz=rate_hz, seconds=seconds)
        after = self._counts()
        self._wait_until_shown(played)
        done, frames = self._counts(), len(played.times_s)
        passed = after["time"] - before["time"]
        cores = {name: (after[name] - before[name]) / passed for name in ("session", "camera", "machine")}
        return Step(
            rate_hz=rate_hz,
            reached_hz=played.reached_hz,
            frames=frames,
            raw=Delays.of(played.times_s, self._raw.seen).complete(),
            denoised=self._denoised_delays(played.times_s),
            growth_s=growth_s(played.times_s, self._raw.seen),
            lost=int(self._watch.values(("FramesLost",))["FramesLost"]),
            shed={name: float(done[name] - before[name]) for name in SHED},
            updates_per_s=(after["images"] - before["images"]) / passed,
            training_per_s=float(after["Learning:StepsPerSecond"]),
            session_cores=cores["session"],
            camera_cores=cores["camera"],
            other_cores=cores["machine"] - cores["session"] - cores["camera"],
            session_frame_ms=1e3 * (done["session"] - before["session"]) / frames,
            camera_frame_ms=1e3 * (done["camera"] - before["camera"]) / frames,
        )

    def _counts(self) -> dict[str, Any]:
        """Return what is counted on for ever: differences are what a step has taken."""
        used, machine = self._session.cpu_times(), psutil.cpu_times()
        return {
            "time": time.time(),
            "session": used.user + used.system,
            "camera": self._camera.cpu_s,
            "machine": machine.user + machine.system + getattr(machine, "nice", 0.0),
            "images": len(self._raw.seen),
            **self._watch.values((*SHED, "Learning:StepsPerSecond")),
        }

    def _denoised_delays(self, times_s: np.ndarray) -> Delays | None:
        """Return the delays of denoised slices, if any came of these frames."""
        delays = delays_s(times_s, self._denoised.seen, within_s=NOT_READY_S)
        return Delays.of(times_s, self._denoised.seen, within_s=NOT_READY_S) if np.isfinite(delays).any() else None

    def _wait_until_shown(self, played: Played) -> None:
        """Wait until the newest frame is on show, so that the next rate begins without a backlog."""
        until = time.monotonic() + CATCH_UP_S
        while np.isnan(delays_s(played.times_s[-1:], self._raw.seen))[0]:
            if time.monotonic() > until:
                raise RuntimeError(f"frames were not on show {CATCH_UP_S:g} s after they came: see serve's log")
            time.sleep(POLL_S)


def rates(trial: Trial, steps: Sequence[Step]) -> Iterator[tuple[float, float]]:
    """Yield each rate with how long it is tried: upwards until one fails, or downwards until one does not.

    steps: what became of those before, to which the caller adds.
    """
    first, *larger = trial.rates_hz
    yield first, trial.measure_s
    upwards = steps[0].sustained
    for rate_hz in larger if upwards else SLOWER_HZ:
        yield rate_hz, trial.step_s
        if steps[-1].sustained != upwards or (upwards and not steps[-1].camera_kept_up):
            return


def growth_s(frame_times_s: np.ndarray, arrivals: Sequence[Arrival]) -> float:
    """Return how much later the last third of frames was shown than the first third (medians)."""
    delays = delays_s(frame_times_s, arrivals)
    third = max(1, len(delays) // 3)
    return float(np.median(delays[-third:]) - np.median(delays[:third]))


def _load() -> tuple[float, float, float]:
    return psutil.getloadavg()
