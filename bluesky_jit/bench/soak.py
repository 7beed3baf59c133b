"""Soak: a service that takes one run after another for ten minutes must not grow, and must lose no frame.

It is `bluesky-jit serve` as people run it: documents over 0MQ, frames from a file that is written at pace, learning
with checkpoints and models, PVs, and records in Tiled. What it takes is read from outside.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console

import bluesky_jit
from bluesky_jit.beamline.series import FLUSH_S
from bluesky_jit.bench.camera import Camera, PlayedScan
from bluesky_jit.bench.drawing import DOTS_PER_INCH, pyplot
from bluesky_jit.bench.experiments import FRAME_S, FULL, QUICK
from bluesky_jit.bench.figures import Figure, show, write
from bluesky_jit.cli.simulated import SimulatedBeamline
from bluesky_jit.cli.watch import Watch

SECONDS, QUICK_SECONDS = 600.0, 6.0
RUN_S, QUICK_RUN_S = 60.0, 3.0
GROWTH_LIMIT_MB = 32.0
"""Most that memory may gain: a batch is 0.1 MB, so that one in a hundred kept by mistake would be twice as much in ten
minutes."""
HANDLES_LIMIT = 4.0
"""Most that threads, or open files and sockets, may gain: one that is left at each run would be more in ten minutes."""
DISK_LIMIT_MB = 64.0
"""Most that checkpoints, models and waiting records may take: a checkpoint of the default network is a few MB a run."""
SETTLING = 0.25
"""Part of the time that buffers fill and libraries load in; it is not counted."""
SAMPLE_S = 1.0
TOLD = 100
"""Samples that are written, about."""
REPORT_S = 30.0
START_S = 90.0
FINISHED_S = 300.0
LEARN_S = 60.0
"""A run is made longer by up to this, where cores are so busy that it has not come to train."""
FOLDERS = ("checkpoints", "models", "spill")
PVS = ("Projections", "FramesLost", "Learning:Step", "Learning:Loss", "ReconStatus", "Message", "Learning:Reason")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Say how things stood at a moment; projections and step: of the run that goes on; disk_mb: in our folders."""

    seconds: float
    run: int
    rss_mb: float
    threads: int
    files: int
    disk_mb: float
    compiled_mb: float
    step: int
    projections: int
    finite: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Soaked:
    """Hold what was seen; sent, received: projections of all runs; state, message: what the service said at the end."""

    samples: Sequence[Sample]
    sent: int
    received: int
    steps: int
    state: str
    message: str


def run(output: Path, *, quick: bool = False, seconds: float = 0.0) -> None:
    """Run, print and write the family `soak`; raise RuntimeError for what must not be."""
    wanted = seconds or (QUICK_SECONDS if quick else SECONDS)
    setup, run_s = (QUICK, QUICK_RUN_S) if quick else (FULL, RUN_S)
    scan = PlayedScan(
        geometry=setup.geometry, angles_per_turn=setup.angles_per_turn, exposure_s=FRAME_S, announce_s=FLUSH_S
    )
    load = psutil.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        soaked = _soaked(scan, Path(folder), wanted, run_s)
    samples, figures = soaked.samples, _figures(soaked)
    told = samples[:: max(1, len(samples) // TOLD)]
    about = {"seconds": wanted, "run_seconds": run_s, "load_average": [load, psutil.getloadavg()]}
    write(figures, output / "soak.json", **about, samples=[asdict(sample) for sample in told])
    _draw(samples, output / "soak.png")
    size = f"{setup.geometry.n_v}×{setup.geometry.n_u}"
    show(figures, f"soak: {wanted:g} s of {size} frames at {1 / FRAME_S:.0f} a second, {samples[-1].run} runs")
    if problem := _problem(soaked, settled=not quick):
        raise RuntimeError(f"{problem}: see soak.json and soak.png")


def _problem(soaked: Soaked, *, settled: bool) -> str:
    """Return what must not be, or nothing; settled: what fills in the first seconds can be told from what grows."""
    samples = soaked.samples
    if soaked.state == "failed" or not soaked.steps:
        return f"the session does not learn: {soaked.message or 'see its log'}"
    if soaked.received != soaked.sent:
        return f"{soaked.sent - soaked.received} of {soaked.sent} frames were lost"
    if not all(sample.finite for sample in samples):
        return "slices or the training loss were not finite"
    limits = (
        ("memory", "MB", GROWTH_LIMIT_MB, lambda sample: sample.rss_mb),
        ("threads", "", HANDLES_LIMIT, lambda sample: sample.threads),
        ("open files", "", HANDLES_LIMIT, lambda sample: sample.files),
    )
    for what, unit, limit, value in limits if settled else ():
        if (gained := growth(samples, value)) > limit:
            return f"{what} grew by {gained:.0f} {unit}".rstrip() + f", and may by {limit:g}"
    if samples[-1].disk_mb > DISK_LIMIT_MB:
        return f"the service's folders take {samples[-1].disk_mb:.0f} MB, and may take {DISK_LIMIT_MB:g}"
    return ""


def growth(samples: Sequence[Sample], value: Callable[[Sample], float]) -> float:
    """Return what a value gained after settling: the median of the last quarter less that of the first."""
    counted = np.array([value(sample) for sample in samples[int(SETTLING * len(samples)) :]])
    quarter = max(1, len(counted) // 4)
    return float(np.median(counted[-quarter:]) - np.median(counted[:quarter]))


def _soaked(scan: PlayedScan, folder: Path, seconds: float, run_s: float) -> Soaked:
    """Send runs to a service for so long; return a sample a second."""
    learn = {"registry": str(folder / "models"), "checkpoint_folder": str(folder / "checkpoints")}
    with SimulatedBeamline(folder, parts=("tiled",), settings={"learn": learn}) as beamline:
        serve = beamline.serve()
        serve.wait_until_ready(START_S)
        address = beamline.settings.serve.publish_address
        with Camera(scan, beamline.frames, address) as camera, Watch(beamline.settings) as watch:
            return _Soak(camera, watch, psutil.Process(serve.pid), folder).run(seconds, run_s)


class _Soak:
    """Play run after run, and look at the service from outside."""

    def __init__(self, camera: Camera, watch: Watch, service: psutil.Process, folder: Path) -> None:
        self._camera, self._watch, self._service, self._folder = camera, watch, service, folder
        self._samples: list[Sample] = []
        self._console = Console()

    def run(self, seconds: float, run_s: float) -> Soaked:
        began_s, sent, received, steps = time.monotonic(), 0, 0, 0
        last: dict[str, object] = {}
        number = 0
        while (left_s := seconds - (time.monotonic() - began_s)) > 0:
            number += 1
            uid = self._camera.begin()
            until = time.monotonic() + min(run_s, left_s)
            while time.monotonic() < until or (not self._learns(number) and time.monotonic() < until + LEARN_S):
                self._camera.play(rate_hz=1 / FRAME_S, seconds=SAMPLE_S)
                self._samples.append(self._sample(number, time.monotonic() - began_s))
            sent += self._camera.end()
            self._watch.wait_until_finished(uid, FINISHED_S)
            last = self._watch.values(PVS)
            received += int(str(last["Projections"]))
            steps += int(str(last["Learning:Step"]))
        return Soaked(
            samples=tuple(self._samples),
            sent=sent,
            received=received,
            steps=steps,
            state=str(last["ReconStatus"]),
            message=str(last["Message"] or last["Learning:Reason"]),
        )

    def _learns(self, number: int) -> bool:
        """Tell whether a run has come to train."""
        return any(sample.step for sample in self._samples if sample.run == number)

    def _sample(self, number: int, seconds: float) -> Sample:
        values = self._watch.values(PVS)
        images = [self._watch.image(name)[0] for name in ("XY:Raw", "XY:Denoised")]
        step = int(values["Learning:Step"])
        sample = Sample(
            seconds=seconds,
            run=number,
            rss_mb=self._service.memory_info().rss / 2**20,
            threads=self._service.num_threads(),
            files=self._service.num_fds(),
            disk_mb=sum(_bytes(_files(self._folder / name)) for name in FOLDERS) / 2**20,
            compiled_mb=_bytes(_compiled()) / 2**20,
            step=step,
            projections=int(values["Projections"]),
            finite=all(bool(np.isfinite(image).all()) for image in images)
            and (step == 0 or bool(np.isfinite(values["Learning:Loss"]))),
        )
        before_s = self._samples[-1].seconds if self._samples else 0.0
        if before_s // REPORT_S != seconds // REPORT_S:
            self._console.print(
                f"{seconds:5.0f} s  run {number}  {sample.rss_mb:6.0f} MB  {sample.threads} threads  {sample.files} "
                f"files  {sample.disk_mb:.1f} MB on disk  {step} steps"
            )
        return sample


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _compiled() -> Iterator[Path]:
    """Yield the files that numba keeps compiled loops in."""
    folder = Path(os.environ.get("NUMBA_CACHE_DIR") or Path(bluesky_jit.__file__).parent)
    return (path for path in folder.rglob("*.nb[ic]") if path.is_file())


def _bytes(paths: Iterator[Path]) -> int:
    """Add up files' sizes; one that has gone in the meantime is none."""
    total = 0
    for path in paths:
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


def _figures(soaked: Soaked) -> list[Figure]:
    samples = soaked.samples
    first, last = samples[int(SETTLING * len(samples))], samples[-1]
    passed = max(last.seconds, SAMPLE_S)
    settled = "last quarter less first, after settling"

    def gained(name: str, unit: str, goal: float, value: Callable[[Sample], float]) -> Figure:
        note = f"of {value(last):.0f}; {settled}"
        return Figure(name=name, value=growth(samples, value), unit=unit, better="lower", goal=goal, note=note)

    return [
        gained("memory gained", "MB", GROWTH_LIMIT_MB, lambda sample: sample.rss_mb),
        gained("threads gained", "", HANDLES_LIMIT, lambda sample: sample.threads),
        gained("open files gained", "", HANDLES_LIMIT, lambda sample: sample.files),
        Figure(
            name="disk taken",
            value=last.disk_mb,
            unit="MB",
            better="lower",
            goal=DISK_LIMIT_MB,
            note=f"{', '.join(FOLDERS)}; compiled loops gained {last.compiled_mb - first.compiled_mb:.1f} MB",
        ),
        Figure(
            name="frames lost",
            value=soaked.sent - soaked.received,
            unit="",
            better="lower",
            goal=0,
            note=f"of {soaked.sent} in {last.run} runs",
        ),
        Figure(name="training", value=soaked.steps / passed, unit="steps/s", better="higher"),
        Figure(name="projections taken", value=soaked.received / passed, unit="1/s", better="higher"),
        Figure(
            name="samples that are finite",
            value=float(np.mean([sample.finite for sample in samples])),
            unit="",
            better="higher",
            goal=1.0,
        ),
    ]


def _draw(samples: Sequence[Sample], path: Path) -> None:
    """Draw memory, handles and disk over time."""
    plt = pyplot()
    seconds = np.array([sample.seconds for sample in samples])
    figure, (memory, handles, disk) = plt.subplots(3, 1, figsize=(8, 7), sharex=True, layout="constrained")
    memory.plot(seconds, [sample.rss_mb for sample in samples])
    memory.axvspan(0, seconds[int(SETTLING * len(samples))], color="gray", alpha=0.15, label="settling")
    memory.set(ylabel="resident memory / MB", ylim=(0, None))
    memory.legend(loc="lower right")
    handles.plot(seconds, [sample.threads for sample in samples], label="threads")
    handles.plot(seconds, [sample.files for sample in samples], label="open files and sockets")
    handles.set(ylim=(0, None))
    handles.legend(loc="lower right")
    disk.plot(seconds, [sample.disk_mb for sample in samples])
    disk.set(xlabel="time / s", ylabel="checkpoints, models,\nwaiting records / MB", ylim=(0, None))
    figure.savefig(path, dpi=DOTS_PER_INCH)
    plt.close(figure)
