"""This machine: cores and threads, and the versions of what is installed."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata

from packaging.requirements import Requirement
from packaging.version import Version

from bluesky_jit.doctor.finding import Finding, Verdict, fine, problem, warning
from bluesky_jit.settings import Settings

DISTRIBUTION = "bluesky-jit"
FEW_CORES = 2
HARDWARE_S = 30.0
"""Loading torch and numba takes seconds on a busy machine; a driver that hangs takes for ever."""


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads(settings: Settings, environment: Mapping[str, str], count: int) -> list[Finding]:
    """Tell whether there are cores for training beside slices, and whether maths libraries leave them alone."""
    subject, workers = "threads", settings.tomo.workers
    wanted = f"tomo.workers is {workers}" if workers else "tomo.workers: all of them"
    text = f"{count} core{'s' if count > 1 else ''} for this process; {wanted}"
    findings = []
    if count < FEW_CORES:
        findings.append(warning(subject, f"{text}: training and slices share one; give the service two or more"))
    elif workers and workers > count:
        findings.append(warning(subject, f"{text}: set it to {count} or less"))
    else:
        findings.append(fine(subject, text))
    given = environment.get("OMP_NUM_THREADS", "")
    if given == "1":
        findings.append(
            fine("OpenMP", "OMP_NUM_THREADS=1: maths libraries leave the cores to the session's own threads")
        )
    else:
        shown = f"OMP_NUM_THREADS is {given}" if given else "OMP_NUM_THREADS is not set"
        why = "threads of maths libraries take cores from the session's own"
        findings.append(warning("OpenMP", f"{shown}: {why}; `export OMP_NUM_THREADS=1` before `bluesky-jit serve`"))
    return findings


def packages() -> list[Finding]:
    """Compare what is installed with what this package supports."""
    subject = "packages"
    try:
        about = metadata.metadata(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return [problem(subject, f"{DISTRIBUTION} is not installed, only found: pip install it")]
    wrong = [fault for line in metadata.requires(DISTRIBUTION) or () if (fault := package_fault(Requirement(line)))]
    if wrong:
        return [problem(subject, f"{'; '.join(wrong)}: `pip install --upgrade {DISTRIBUTION}`")]
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("bluesky", "ophyd", "tiled", "numpy", "torch"))
    return [fine(subject, f"{DISTRIBUTION} {about['Version']}, Python {platform.python_version()}, {versions}")]


def package_fault(wanted: Requirement) -> str:
    """Say what is wrong with a package that is asked for; empty: nothing, or it is asked for by an extra."""
    if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
        return ""
    try:
        found = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return f"{wanted.name} is missing"
    if wanted.specifier.contains(Version(found), prereleases=True):
        return ""
    return f"{wanted.name} is {found}, and {wanted.specifier} is supported"


def hardware(settings: Settings, *, timeout_s: float = HARDWARE_S) -> list[Finding]:
    """Ask a process of its own about GPU, torch and numba: a driver that hangs or crashes takes only that one along."""
    command = [sys.executable, "-m", "bluesky_jit.doctor.hardware", settings.tomo.kernel]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        text = f"GPU, torch and numba did not answer within {timeout_s:g} s: see whether `nvidia-smi` does"
        return [problem("hardware", text)]
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
        return [problem("hardware", f"torch, numba or the GPU's driver broke ({last}): reinstall what it names")]
    found: list[tuple[str, Verdict, str]] = json.loads(done.stdout.splitlines()[-1])
    return [Finding(subject=subject, verdict=verdict, text=text) for subject, verdict, text in found]
