"""What just-in-time learning costs a live run: time added to each document, and how late the slices are.

Scans of the simulated beamline: first with the documents forwarded to `bluesky-jit serve` (and, in the same run, by
bluesky's own Publisher to its own proxy, as the peer), then with the session in the RunEngine's process.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bluesky_jit.bench.figures import Figure, show, write
from bluesky_jit.cli.processes import free_ports
from bluesky_jit.cli.scan import ANGLES_PER_TURN, EXPOSURE_S
from bluesky_jit.cli.simulated import SimulatedBeamline, end_ca_client

GOAL_MS = 1.0
"""Of issue 2: forwarding adds less than 1 ms to a document at the 99th percentile."""


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


def run(output: Path, *, quick: bool = False) -> list[Figure]:
    """Measure, print and write the family `live`."""
    turns = 2 if quick else 8
    with tempfile.TemporaryDirectory() as folder, SimulatedBeamline(Path(folder)) as beamline:
        from bluesky_jit.beamline.environment import loopback_epics

        loopback_epics(beamline.settings)
        forwarded, peer, status = _forwarded(beamline, turns)
        in_process = _in_process(beamline, turns)
        end_ca_client()
    figures = [
        Figure(
            name=f"forwarding a document, {label}",
            value=forwarded.percentile(percent),
            unit="ms",
            better="lower",
            goal=GOAL_MS if percent == 99 else None,
            peer=peer.percentile(percent),
            note="peer: bluesky's Publisher (pickle), same run",
        )
        for label, percent in (("median", 50), ("p99", 99), ("worst", 100))
    ]
    figures += [
        Figure(
            name=f"session in the same process, {label}",
            value=in_process.percentile(percent),
            unit="ms",
            better="lower",
            note=f"{len(in_process.times_ms)} documents; training in another thread",
        )
        for label, percent in (("median", 50), ("p99", 99), ("worst", 100))
    ]
    figures += [
        Figure(
            name="exposure to slice, median",
            value=status["latency_ms"],
            unit="ms",
            better="lower",
            note="serve, in the scan",
        ),
        Figure(name="updates of three slices", value=status["UpdateRate"], unit="1/s", better="higher", note="serve"),
        Figure(name="training", value=status["Learning:StepsPerSecond"], unit="steps/s", better="higher", note="serve"),
    ]
    write(figures, output / "live.json")
    _draw({"forwarded": forwarded, "bluesky's Publisher": peer, "in process": in_process}, output / "live.png")
    show(figures, f"live: {turns} turns of {ANGLES_PER_TURN} projections at {1 / EXPOSURE_S:.0f} frames/s")
    return figures


def _forwarded(beamline: SimulatedBeamline, turns: int) -> tuple[Timed, Timed, dict[str, float]]:
    """Scan with documents forwarded to `serve` and by bluesky's own means; return also what serve's PVs say."""
    from bluesky.callbacks.buffer import BufferingWrapper
    from bluesky.callbacks.zmq import Publisher

    from bluesky_jit.cli.watch import Watch
    from bluesky_jit.intake.wire import DocumentPublisher

    beamline.serve().wait_until_ready(90.0)
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
        if not publisher.wait_for_listener(10.0):
            raise RuntimeError("bluesky-jit serve does not listen: see its log")
        forwarded, other = Timed(buffered), Timed(peer)
        with Watch(beamline.settings) as watch:
            latencies_ms: list[float] = []
            following = watch.follow("Latency", latencies_ms.append)
            uid = _scan(beamline, turns, [forwarded, other])
            watch.wait_until_finished(uid, 60.0)
            following.close()
            status = {**watch.values(), "latency_ms": float(np.nanmedian(latencies_ms))}
    finally:
        buffered.shutdown()
        publisher.close()
        peer.close()
        proxy.terminate()
        proxy.wait(10)
    return forwarded, other, status


def _in_process(beamline: SimulatedBeamline, turns: int) -> Timed:
    """Scan with the session in the RunEngine's process, without sinks."""
    from bluesky_jit.intake.callback import JITCallback
    from bluesky_jit.session.wiring import Session

    with Session(beamline.settings, sinks=[]) as session:
        timed = Timed(JITCallback(session))
        _scan(beamline, turns, [timed])
    return timed


def _scan(beamline: SimulatedBeamline, turns: int, callbacks: list[Timed]) -> str:
    """Scan with a RunEngine whose only subscribers are the timed callbacks; return the run's uid."""
    from bluesky import RunEngine

    from bluesky_jit.beamline.console import make_devices, missing_devices
    from bluesky_jit.beamline.plans import tomo_scan

    devices = make_devices(beamline.settings)
    if problem := missing_devices(devices, timeout_s=10.0):
        raise RuntimeError(problem)
    engine = RunEngine({}, context_managers=[])
    for callback in callbacks:
        engine.subscribe(callback)
    plan = tomo_scan(
        *devices.arguments,
        turns=turns,
        angles_per_turn=ANGLES_PER_TURN,
        exposure_s=EXPOSURE_S,
        geometry=beamline.settings.geometry,
    )
    try:
        result = engine(plan)
    finally:
        engine.loop.call_soon_threadsafe(engine.loop.stop)
    return str(result[0] if isinstance(result, tuple) else result.run_start_uids[0])


def _draw(series: dict[str, Timed], path: Path) -> None:
    """Draw the share of documents that took longer than a time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, timed in series.items():
        times = np.sort(timed.times_ms)
        axis.plot(times, 1 - np.arange(len(times)) / len(times), label=name, drawstyle="steps-post")
    axis.axvline(GOAL_MS, color="gray", linestyle=":", label="goal at p99")
    axis.set(
        xscale="log", yscale="log", xlabel="time added to a document / ms", ylabel="share of documents that took longer"
    )
    axis.axhline(0.01, color="gray", linewidth=0.5)
    axis.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)
