"""What just-in-time learning adds to the documents of a RunEngine, in scans of the simulated beamline."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bluesky_jit.bench.arrivals import NOT_READY_S, Arrival, Arrivals, Delays
from bluesky_jit.cli.demo import PHOTONS
from bluesky_jit.cli.processes import free_ports
from bluesky_jit.cli.simulated import SimulatedBeamline

READY_S = 90.0
FINISHED_S = 60.0
CONNECT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanSize:
    """Describe a scan: frames of rows × columns, angles in a turn, and how many turns with and without `serve`."""

    rows: int
    columns: int
    angles_per_turn: int
    exposure_s: float
    turns: int
    turns_in_process: int

    @property
    def ioc_options(self) -> tuple[str, ...]:
        """Return what makes the simulated camera play such frames: rendered beforehand, which costs it nothing."""
        return (
            *("--rows", str(self.rows), "--columns", str(self.columns), "--photons", str(PHOTONS)),
            *("--prerender", str(self.angles_per_turn), "--prerender-exposure-s", str(self.exposure_s)),
        )


class Timed:
    """Call a callback and keep how long each document took, in ms."""

    def __init__(self, callback: Callable[[str, Any], Any]) -> None:
        self._callback = callback
        self.times_ms: list[float] = []

    def __call__(self, name: str, document: dict[str, Any]) -> None:
        began = time.perf_counter()
        self._callback(name, document)
        self.times_ms.append((time.perf_counter() - began) * 1e3)

    def percentile(self, percent: float) -> float:
        return float(np.percentile(self.times_ms, percent))


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarded:
    """Hold what a scan with `serve` gave: times added to documents, ours and bluesky's own, and how late slices were.

    status: what the session's PVs said at the end.
    """

    ours: Timed
    peer: Timed
    raw: Delays
    denoised: Delays | None
    status: dict[str, Any]


def forwarded(beamline: SimulatedBeamline, size: ScanSize) -> Forwarded:
    """Scan with documents forwarded to `serve` and by bluesky's own means, while a client follows the slices."""
    from bluesky.callbacks.buffer import BufferingWrapper
    from bluesky.callbacks.zmq import Publisher

    from bluesky_jit.cli.watch import Watch
    from bluesky_jit.intake.wire import DocumentPublisher

    beamline.serve().wait_until_ready(READY_S)
    proxy_in, proxy_out = free_ports(2)
    proxy = subprocess.Popen(
        [str(Path(sys.executable).parent / "bluesky-0MQ-proxy"), f"127.0.0.1:{proxy_in}", f"127.0.0.1:{proxy_out}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    publisher, peer = DocumentPublisher(beamline.settings.serve.publish_address), Publisher(f"127.0.0.1:{proxy_in}")
    # As a console subscribes it (bluesky_jit/beamline/console.py).
    buffered = BufferingWrapper(publisher)
    try:
        if not publisher.wait_for_listener(CONNECT_S):
            raise RuntimeError("bluesky-jit serve does not listen: see its log")
        ours, other = Timed(buffered), Timed(peer)
        with (
            Watch(beamline.settings) as watch,
            Arrivals(watch, "XY:Raw") as raw,
            Arrivals(watch, "XY:Denoised") as denoised,
        ):
            uid = _scan(beamline, size, size.turns, [ours, other])
            watch.wait_until_finished(uid, FINISHED_S)
            status = watch.values()
    finally:
        buffered.shutdown()
        publisher.close()
        peer.close()
        proxy.terminate()
        proxy.wait(10)
    times_s = _frame_times_s(beamline.frames)
    return Forwarded(
        ours=ours,
        peer=other,
        raw=_delays(times_s, raw.seen).complete(),
        denoised=_delays(times_s, denoised.seen, within_s=NOT_READY_S) if denoised.seen else None,
        status=status,
    )


def in_process(beamline: SimulatedBeamline, size: ScanSize) -> Timed:
    """Scan with the session in the RunEngine's process, without sinks."""
    from bluesky_jit.intake.callback import JITCallback
    from bluesky_jit.session.wiring import Session

    with Session(beamline.settings, sinks=[]) as session:
        timed = Timed(JITCallback(session))
        _scan(beamline, size, size.turns_in_process, [timed])
    return timed


def _delays(frame_times_s: np.ndarray, arrivals: Sequence[Arrival], *, within_s: float = np.inf) -> Delays:
    """Return the delays of frames from the newest of the first image on: those before it wait for the first window."""
    since_s = arrivals[0].frame_time_s if arrivals else np.inf
    return Delays.of(frame_times_s[frame_times_s >= since_s], arrivals, within_s=within_s)


def _frame_times_s(folder: Path) -> np.ndarray:
    """Return the time stamps of the last run's projections, in Unix seconds."""
    import h5py

    from bluesky_jit.intake.frames import unix_times

    path = max(folder.glob("*-primary_*.h5"), key=lambda path: path.stat().st_mtime)
    with h5py.File(path, "r", locking=False) as file:
        times = file["/entry/instrument/NDAttributes/NDArrayTimeStamp"]
        return unix_times(np.asarray(times), path.stat().st_mtime)


def _scan(beamline: SimulatedBeamline, size: ScanSize, turns: int, callbacks: Sequence[Timed]) -> str:
    """Scan with a RunEngine whose only subscribers are the timed callbacks; return the run's uid."""
    from bluesky import RunEngine

    from bluesky_jit.beamline.console import make_devices, missing_devices
    from bluesky_jit.beamline.plans import tomo_scan

    devices = make_devices(beamline.settings)
    if problem := missing_devices(devices, timeout_s=CONNECT_S):
        raise RuntimeError(problem)
    engine = RunEngine({}, context_managers=[])
    for callback in callbacks:
        engine.subscribe(callback)
    plan = tomo_scan(
        *devices.arguments,
        turns=turns,
        angles_per_turn=size.angles_per_turn,
        exposure_s=size.exposure_s,
        geometry=beamline.settings.geometry,
    )
    try:
        result = engine(plan)
    finally:
        engine.loop.call_soon_threadsafe(engine.loop.stop)
    return str(result[0] if isinstance(result, tuple) else result.run_start_uids[0])
