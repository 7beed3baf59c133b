"""`bluesky-jit demo`: the whole beamline in one command.

It starts the simulated IOCs, Tiled and `bluesky-jit serve` as processes, scans with a RunEngine of its own exactly as a
console would, watches through the published PVs, and compares the last slices with the truth.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from datetime import datetime
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

from bluesky_jit.cli.processes import INTERRUPTS
from bluesky_jit.cli.report import SliceReport, draw
from bluesky_jit.cli.scan import ANGLES_PER_TURN, EXPOSURE_S, Scan
from bluesky_jit.cli.simulated import PROFILE, SimulatedBeamline, end_ca_client, require_sim_devices
from bluesky_jit.cli.watch import Watch
from bluesky_jit.settings import Settings

PHOTONS = 1000
"""Photons on a pixel of the open beam in 20 ms: few enough that raw slices need denoising, as in the paper."""
SERVE_READY_S = 90.0
LAST_SLICES_S = 30.0
RECORDS_S = 30.0
REFRESH_S = 0.25


def demo(directory: Path | None, *, turns: int, keep: bool) -> int:
    """Run the demonstration; return the exit status."""
    require_sim_devices()
    console = Console()
    directory = directory or Path("jit-data") / f"demo-{datetime.now():%Y%m%d-%H%M%S}"
    beamline = SimulatedBeamline(directory, ioc_options=("--experiment", "A", "--photons", str(PHOTONS)))
    # matplotlib keeps a list of fonts.
    os.environ["MPLCONFIGDIR"] = str(beamline.directory / "matplotlib")
    signal.signal(signal.SIGTERM, _interrupt)
    scan: Scan | None = None
    try:
        with console.status("starting IOCs, Tiled and the JIT session"):
            beamline.__enter__()
            beamline.serve().wait_until_ready(SERVE_READY_S)
        with Watch(beamline.settings) as watch:
            scan = Scan(beamline, turns)
            began = time.monotonic()
            latencies_ms: list[float] = []
            following = watch.follow("Latency", latencies_ms.append)
            uid = _show_progress(console, scan, watch, beamline)
            watch.wait_until_finished(uid, LAST_SLICES_S)
            following.close()
            console.print(f"\nscan finished after {time.monotonic() - began:.0f} s")
            reports = _compare(beamline, watch)
            picture = draw(reports, beamline.directory / "before-after.png", f"bluesky_jit demo, run {uid[:8]}")
            _wait_for_records(beamline.settings, uid)
            console.print(_summary(reports, watch, float(np.nanmedian(latencies_ms))))
            console.print(_quality(watch.values()))
            if any(np.isnan(report.denoised).any() for report in reports):
                reason, more = watch.values()["Learning:Reason"], 2 * turns
                console.print(f"[yellow]not all slices were denoised at the end ({reason}): try --turns {more}")
            console.print(f"picture: {picture}")
            console.print("\nread it back (the servers are up with --keep; the files stay either way)", style="dim")
            # As they are: a frame or a broken line could not be pasted.
            console.print(_lines_to_paste(beamline, uid), soft_wrap=True, markup=False, highlight=False)
            if keep:
                console.print("everything stays up until Ctrl-C")
                signal.pause()
    except KeyboardInterrupt:
        console.print("stopping")
        return 0 if keep else 130
    finally:
        # An impatient second Ctrl-C must leave nothing running.
        for number in INTERRUPTS:
            signal.signal(number, signal.SIG_IGN)
        try:
            if scan is not None:
                scan.close()
        finally:
            end_ca_client()
            beamline.stop()
    return 0


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _show_progress(console: Console, scan: Scan, watch: Watch, beamline: SimulatedBeamline) -> str:
    scan.start()
    with Live(console=console, refresh_per_second=4) as live:
        while scan.running:
            for child in beamline.lost():
                raise RuntimeError(f"{child.name} has ended: see {child.log}\n{child.tail()}")
            live.update(_progress(watch.values(), scan.turns))
            time.sleep(REFRESH_S)
        live.update(_progress(watch.values(), scan.turns))
    if scan.error is not None:
        raise RuntimeError(f"the scan failed: {scan.error}") from scan.error
    return scan.uid


def _progress(values: dict[str, Any], turns: int) -> Table:
    def number(name: str, pattern: str) -> str:
        value = values[name]
        return "–" if value is None or value != value else format(value, pattern)

    table = Table(title="live", show_header=False, expand=False)
    done = min(1.0, float(values["Turns"] or 0) / turns)
    table.add_row(
        "scan", f"{'━' * round(30 * done)}{'·' * (30 - round(30 * done))} {number('Turns', '.1f')} of {turns} turns"
    )
    table.add_row("frames", f"{number('FramesReceived', 'd')} received, {number('FramesLost', 'd')} lost")
    table.add_row("slices", f"{number('UpdateRate', '.1f')} updates/s, {number('ReconTime', '.1f')} ms for three")
    table.add_row("latency", f"{number('Latency', '.0f')} ms from exposure to slice")
    table.add_row(
        "learning", f"step {number('Learning:Step', 'd')}, {number('Learning:StepsPerSecond', '.0f')} steps/s"
    )
    table.add_row(
        "accuracy",
        f"{number('Learning:Accuracy', '.3f')} fresh, {number('Learning:HeldOut', '.3f')} held out (0.5 is ideal)",
    )
    table.add_row(
        "quality",
        f"{number('Learning:Unseen', '.3f')} on unseen projections, {number('Learning:WholeSlice', '.3f')} on "
        "whole slices (below 0.75 beats raw)",
    )
    ready = values["Learning:Ready"]
    table.add_row(
        "denoised", f"{'[green]● READY' if ready else '[yellow]○ not yet'}[/] {values['Learning:Reason'] or ''}"
    )
    if values["Message"]:
        table.add_row("message", f"[red]{values['Message']}")
    return table


def _compare(beamline: SimulatedBeamline, watch: Watch) -> list[SliceReport]:
    """Compare the last slices with the truth at the middle of their window."""
    window_s = ANGLES_PER_TURN * EXPOSURE_S
    images = {name: (watch.image(f"{name}:Raw"), watch.image(f"{name}:Denoised")) for name in ("XY", "XZ", "YZ")}
    for name, ((image, raw), (_, denoised)) in images.items():
        if denoised.get("Update") != raw.get("Update"):
            # An earlier one would be compared with a truth that has moved on.
            images[name] = (images[name][0], (np.full_like(image, np.nan), {}))
    grids = {name: json.loads(raw["Grid"]) for name, ((_, raw), _) in images.items()}
    times = {name: raw["data_time_s"] - window_s / 2 for name, ((_, raw), _) in images.items()}
    truths = beamline.true_slices(grids, times)
    return [
        SliceReport(name=name, raw=raw, denoised=denoised, truth=truths[name][0], extent_mm=_extent_mm(grids[name]))
        for name, ((raw, _), (denoised, _)) in images.items()
    ]


def _extent_mm(grid: dict[str, Any]) -> tuple[float, float, float, float]:
    """Return the first and last position along columns and rows, for an orthogonal slice."""
    _, ny, nx = grid["shape"]
    ends = []
    for step, n in (("x_step", nx), ("y_step", ny)):
        axis = int(np.argmax(np.abs(grid[step])))
        ends += [grid["origin"][axis], grid["origin"][axis] + n * grid[step][axis]]
    return ends[0], ends[1], ends[2], ends[3]


def _wait_for_records(settings: Settings, uid: str) -> None:
    """Wait until Tiled has both the raw run and ours, whole."""
    from tiled.queries import Eq

    from bluesky_jit.archive import connect, jit_catalog, raw_catalog

    client = connect(settings.tiled)
    until = time.monotonic() + RECORDS_S
    while time.monotonic() < until:
        ours = jit_catalog(client).search(Eq("start.raw_run", uid))
        runs = [raw_catalog(client)[uid], *ours.values()]
        if len(runs) > 1 and all(run.metadata.get("stop") for run in runs):
            return
        time.sleep(REFRESH_S)
    raise RuntimeError(
        f"Tiled has no complete record of run {uid[:8]} after {RECORDS_S:g} s: see serve.log and tiled.log in logs"
    )


def _summary(reports: list[SliceReport], watch: Watch, latency_ms: float) -> Table:
    values = watch.values()
    table = Table(
        title=f"{values['FramesReceived']} frames, {values['FramesLost']} lost · {values['UpdateNumber']} updates · "
        f"median latency {latency_ms:.0f} ms · {values['Learning:Step']} training steps · "
        f"held-out accuracy {values['Learning:HeldOut']:.3f}"
    )
    for column in ("slice", "PSNR raw", "PSNR denoised", "SSIM raw", "SSIM denoised"):
        table.add_column(column, justify="left" if column == "slice" else "right")
    for report in reports:
        figures = report.figures()
        table.add_row(
            report.name,
            f"{figures['psnr_raw']:.1f} dB",
            _green(figures["psnr_denoised"], ".1f", " dB"),
            f"{figures['ssim_raw']:.3f}",
            _green(figures["ssim_denoised"], ".3f"),
        )
    return table


def _green(value: float, pattern: str, unit: str = "") -> str:
    """Return a figure of a denoised slice, or a dash where there is none."""
    return f"[green]{value:{pattern}}{unit}[/]" if np.isfinite(value) else "–"


def _quality(values: dict[str, Any]) -> str:
    """Say in one line how good the denoiser is on what it has never seen."""
    unseen, whole = values["Learning:Unseen"], values["Learning:WholeSlice"]
    if unseen != unseen:
        return "quality: no projections were kept from training for long enough to be judged on"
    return (
        f"quality: accuracy {unseen:.3f} on projections never trained on, {whole:.3f} on whole slices of them "
        f"(0.5 is ideal, below 0.75 beats raw); {values['Learning:ResidualVerdict']}"
    )


def _lines_to_paste(beamline: SimulatedBeamline, uid: str) -> str:
    """Return lines that work as they stand while everything is up (--keep)."""
    epics, python = beamline.settings.epics, Path(sys.executable)
    return f"""\
EPICS_CA_ADDR_LIST=127.0.0.1:{epics.ca_port} EPICS_CA_AUTO_ADDR_LIST=NO \\
  {quote(str(python.with_name("caproto-get")))} --no-repeater {epics.prefix}XY:Denoised:ArrayData

export BLUESKY_JIT_SETTINGS={quote(str(beamline.settings_file))} TILED_PROFILES={quote(str(beamline.profiles))}
{quote(str(python))}
import os
from bluesky_jit import load_settings
from bluesky_jit.archive import connect, raw_catalog
from bluesky_jit.results import results
client = connect(load_settings().tiled)
raw_catalog(client)["{uid}"]
results("{uid}", client)["XY"]
os.environ["TILED_API_KEY"] = load_settings().tiled.api_key
from databroker import catalog
catalog["{PROFILE}"]["raw"]["{uid}"]
"""
