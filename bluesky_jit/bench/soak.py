"""Soak: a session that learns for ten minutes on a simulated stream must not grow, and its weights must stay numbers.

The whole session runs in this process, without sinks: intake, slices, pairs and training, on a recording of the
dissolving tablet that is played again and again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console

from bluesky_jit.bench.drawing import DOTS_PER_INCH, pyplot
from bluesky_jit.bench.experiments import (
    FRAME_S,
    FULL,
    QUICK,
    TRAINING_START_S,
    TUNING_SEEDS,
    Recording,
    Setup,
    recording,
)
from bluesky_jit.bench.figures import Figure, show, write
from bluesky_jit.learn.weights import Weights
from bluesky_jit.messages import FrameKind, InlineFrames, RunStart, SessionStatus
from bluesky_jit.session.wiring import Session
from bluesky_jit.settings import Settings

SECONDS, QUICK_SECONDS = 600.0, 12.0
GROWTH_LIMIT_MB = 32.0
"""Most that memory may gain: a batch is 0.1 MB, so that one in a hundred kept by mistake would be twice as much in ten
minutes."""
SETTLING = 0.25
"""Part of the time that buffers fill and libraries load in; it is not counted."""
SAMPLE_S = 1.0
TOLD = 100
"""Samples that are written, about."""
REPORT_S = 30.0
CHUNK_S = 0.1
"""Frames are handed over so often, as a file that is read now and then gives them."""
RUN = "soak"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Say how things stood at a moment of the run."""

    seconds: float
    rss_mb: float
    step: int
    projections: int
    finite: bool


def run(output: Path, *, quick: bool = False, cache: Path = Path("jit-data/bench"), seconds: float = 0.0) -> None:
    """Run, print and write the family `soak`; raise RuntimeError when memory grew or weights are not finite."""
    setup = replace(QUICK if quick else FULL, turns=2)
    wanted = seconds or (QUICK_SECONDS if quick else SECONDS)
    taken = recording(setup, "A", TUNING_SEEDS[0], TRAINING_START_S, cache)
    samples, status = _soaked(taken, wanted)
    figures = _figures(samples)
    output.mkdir(parents=True, exist_ok=True)
    told = samples[:: max(1, len(samples) // TOLD)]
    write(figures, output / "soak.json", seconds=wanted, samples=[asdict(sample) for sample in told])
    _draw(samples, output / "soak.png")
    show(
        figures, f"soak: {wanted:g} s of {setup.geometry.n_v}×{setup.geometry.n_u} frames at {1 / FRAME_S:.0f} a second"
    )
    if status.state == "failed" or status.learning.step == 0:
        raise RuntimeError(f"the session does not learn ({status.learning.reason}): {status.message or 'see its log'}")
    if not all(sample.finite for sample in samples):
        raise RuntimeError("weights were not finite: look for the step in soak.json")
    # Memory that fills in the first seconds is no leak.
    if not quick and growth_mb(samples) > GROWTH_LIMIT_MB:
        raise RuntimeError(f"memory grew by {growth_mb(samples):.0f} MB, and may by {GROWTH_LIMIT_MB:g}: see soak.png")


def growth_mb(samples: Sequence[Sample]) -> float:
    """Return what memory gained after settling: the median of the last quarter less that of the first."""
    counted = np.array([sample.rss_mb for sample in samples[int(SETTLING * len(samples)) :]])
    quarter = max(1, len(counted) // 4)
    return float(np.median(counted[-quarter:]) - np.median(counted[:quarter]))


def _soaked(taken: Recording, seconds: float) -> tuple[list[Sample], SessionStatus]:
    """Play the recording for so long; return a sample a second, and the session's status at the end."""
    console, process, samples = Console(), psutil.Process(), []
    with Session(Settings(), sinks=[]) as session:
        session.submit(_start(taken.setup))
        references: dict[FrameKind, np.ndarray] = {"dark": taken.darks, "flat": taken.flats}
        for kind, counts in references.items():
            session.submit(_frames(taken, kind, np.arange(len(counts)), counts))
        began, sent, reported = time.monotonic(), 0, 0.0
        while (passed := time.monotonic() - began) < seconds:
            due = np.arange(sent, int(passed / FRAME_S))
            session.submit(_frames(taken, "projection", due, taken.projections[due % len(taken.projections)]))
            sent += len(due)
            if passed >= len(samples) * SAMPLE_S:
                learner, status = session.run.learner if session.run else None, session.status
                samples.append(
                    Sample(
                        seconds=passed,
                        rss_mb=process.memory_info().rss / 2**20,
                        step=status.learning.step,
                        projections=status.projections,
                        finite=_finite(learner.weights if learner else None),
                    )
                )
            if passed >= reported + REPORT_S:
                reported = passed
                console.print(f"{passed:5.0f} s  {samples[-1].rss_mb:6.0f} MB  {samples[-1].step:7d} steps")
            time.sleep(CHUNK_S)
        return samples, session.status


def _start(setup: Setup) -> RunStart:
    geometry = setup.geometry
    return RunStart(
        run_uid=RUN,
        scan_id=1,
        plan_name="soak",
        time_s=time.time(),
        tomo={
            "geometry": "cone",
            "pixel_mm": geometry.pixel_mm,
            "source_axis_mm": geometry.source_axis_mm,
            "source_detector_mm": geometry.source_detector_mm,
            "n_angles_per_rotation": setup.angles_per_turn,
        },
    )


def _frames(taken: Recording, kind: FrameKind, numbers: np.ndarray, counts: np.ndarray) -> InlineFrames:
    angles_rad = 2 * np.pi * numbers / taken.setup.angles_per_turn
    return InlineFrames(
        run_uid=RUN,
        kind=kind,
        counts=counts,
        unique_ids=numbers,
        frame_times_s=time.time() + FRAME_S * (numbers - numbers[-1:]),
        angles_rad=angles_rad if kind == "projection" else None,
        angle_source="same stream",
    )


def _finite(weights: Weights | None) -> bool:
    return weights is None or all(bool(tensor.isfinite().all()) for tensor in weights.tensors.values())


def _figures(samples: Sequence[Sample]) -> list[Figure]:
    first, last = samples[int(SETTLING * len(samples))], samples[-1]
    passed = max(last.seconds - first.seconds, SAMPLE_S)
    return [
        Figure(
            name="memory gained",
            value=growth_mb(samples),
            unit="MB",
            better="lower",
            goal=GROWTH_LIMIT_MB,
            note=f"of {last.rss_mb:.0f}; last quarter less first, after settling",
        ),
        Figure(name="training", value=(last.step - first.step) / passed, unit="steps/s", better="higher"),
        Figure(
            name="projections taken", value=(last.projections - first.projections) / passed, unit="1/s", better="higher"
        ),
        Figure(
            name="snapshots that are finite",
            value=float(np.mean([sample.finite for sample in samples])),
            unit="",
            better="higher",
            goal=1.0,
        ),
    ]


def _draw(samples: Sequence[Sample], path: Path) -> None:
    """Draw memory and steps a second over time."""
    plt = pyplot()
    seconds = np.array([sample.seconds for sample in samples])
    figure, (memory, speed) = plt.subplots(2, 1, figsize=(8, 5), sharex=True, layout="constrained")
    memory.plot(seconds, [sample.rss_mb for sample in samples])
    memory.axvspan(0, seconds[int(SETTLING * len(samples))], color="gray", alpha=0.15, label="settling")
    memory.set(ylabel="resident memory / MB", ylim=(0, None))
    memory.legend(loc="lower right")
    speed.plot(seconds[1:], np.diff([sample.step for sample in samples]) / np.diff(seconds))
    speed.set(xlabel="time / s", ylabel="training / steps/s", ylim=(0, None))
    figure.savefig(path, dpi=DOTS_PER_INCH)
    plt.close(figure)
