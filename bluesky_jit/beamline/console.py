"""What a console, or a queue server's worker, starts with: devices, subscriptions, plans and a banner.

Whatever is missing costs one line that says how to start it, and never the console.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

import rich.console
import rich.panel
import rich.table
import rich.text
from bluesky import RunEngine
from bluesky.callbacks.best_effort import BestEffortCallback
from bluesky.callbacks.buffer import BufferingWrapper
from bluesky.callbacks.core import make_callback_safe
from bluesky_tiled_plugins import TiledWriter
from ophyd.signal import EpicsSignalBase

from bluesky_jit.archive import address, connect, listens, raw_catalog, spill_directory, without_key
from bluesky_jit.beamline.camera import TomoCamera
from bluesky_jit.beamline.shutter import SamplePositioner, Shutter
from bluesky_jit.beamline.stage import RotationStage
from bluesky_jit.intake.wire import DocumentPublisher
from bluesky_jit.settings import Settings

logger = logging.getLogger(__name__)

CONNECT_S = 2.0
LISTENER_S = 0.5
BATCH_ROWS = 25
"""Rows, or events, written to Tiled at a time; what is left is written when the run ends.

A write takes some 30 ms, and a scan brings four columns of rows ten times a second: one by one they fell behind.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices:
    """The beamline's devices."""

    camera: TomoCamera
    stage: RotationStage
    shutter: Shutter
    sample: SamplePositioner | None

    @property
    def arguments(self) -> tuple[TomoCamera, RotationStage, Shutter, SamplePositioner | None]:
        """Return the devices in the order in which the tomography plans take them."""
        return self.camera, self.stage, self.shutter, self.sample


def make_devices(settings: Settings) -> Devices:
    """Make the devices; they connect by themselves whenever their IOCs are there."""
    names = settings.beamline
    return Devices(
        camera=TomoCamera(names.camera, name="camera", file_directory=names.file_directory, pva=names.pva),
        stage=RotationStage(names.stage, name="stage"),
        shutter=Shutter(names.shutter, name="shutter"),
        sample=SamplePositioner(names.sample, name="sample") if names.sample else None,
    )


def missing_devices(devices: Devices, timeout_s: float = CONNECT_S) -> str:
    """Return one line about devices that do not answer in time, or nothing."""
    # Where a camera's records are lazy, looking at one waits for it.
    signals: dict[str, Callable[[], EpicsSignalBase]] = {
        "camera": lambda: devices.camera.cam.acquire,
        "stage": lambda: devices.stage.user_readback,
        "shutter": lambda: devices.shutter.state,
    }
    if (sample := devices.sample) is not None:
        signals["sample"] = lambda: sample.state
    deadline = time.monotonic() + timeout_s
    missing = [name for name, signal in signals.items() if not _connects(signal, deadline)]
    if not missing:
        return ""
    return (
        f"{', '.join(missing)}: no answer. Start your IOCs, or a simulated beamline with `bluesky-jit sim` "
        "(and this console again in the same folder)."
    )


def _connects(signal: Callable[[], EpicsSignalBase], deadline: float) -> bool:
    try:
        signal().wait_for_connection(timeout=max(deadline - time.monotonic(), 0.01))
    except TimeoutError:
        return False
    return True


def bound(plan: Callable[..., Any], *devices: Any, **values: Any) -> Callable[..., Any]:
    """Return the plan with its devices and some values filled in, so that they need not be typed.

    The signature shows what is left, for `plan?` and for the queue server.
    """

    @wraps(plan)
    def bound_plan(*arguments: Any, **keywords: Any) -> Any:
        return (yield from plan(*devices, *arguments, **{**values, **keywords}))

    signature = inspect.signature(plan, eval_str=True)
    left = [
        parameter for parameter in list(signature.parameters.values())[len(devices) :] if parameter.name not in values
    ]
    bound_plan.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
    bound_plan.__annotations__ = {parameter.name: parameter.annotation for parameter in left}
    return bound_plan


# ── who listens to the RunEngine ─────────────────────────────────────────────────────────────────────────────────────


def subscribe_table(engine: RunEngine) -> None:
    """Show runs as tables; plots need a GUI that a console need not have."""
    table = BestEffortCallback()
    table.disable_plots()
    engine.subscribe(make_callback_safe(table, logger=logger))


def subscribe_jit(engine: RunEngine, settings: Settings, timeout_s: float = LISTENER_S) -> str:
    """Send documents to `bluesky-jit serve`; return one line when it is not there (it may be started at any time)."""
    publisher = DocumentPublisher(settings.serve.publish_address, curve_folder=settings.serve.curve_folder)
    listening = publisher.wait_for_listener(timeout_s)
    engine.subscribe(publisher)
    if listening:
        return ""
    return "JIT session: not running. Start it with `bluesky-jit serve`; it hears the next run."


def subscribe_tiled(engine: RunEngine, settings: Settings) -> tuple[BufferingWrapper | None, Any, str]:
    """Record runs in Tiled; return the recorder and the catalog of raw runs, or None twice and what is missing."""
    uri = settings.tiled.uri
    if not uri:
        return (
            None,
            None,
            "catalog: no Tiled server is set (tiled.uri), so runs are not recorded. `bluesky-jit sim` starts one.",
        )
    place = address(uri)
    if not listens(uri):
        return (
            None,
            None,
            f"catalog: no answer from Tiled at {place}, so runs are not recorded. Start it, then this console again.",
        )
    try:
        catalog = raw_catalog(connect(settings.tiled))
    except Exception as error:
        logger.debug("Tiled refused", exc_info=True)
        reason = without_key(str(error), settings.tiled.api_key)
        return None, None, f"catalog: Tiled at {place} refused ({reason}): runs are not recorded. Check tiled.api_key."
    backup = spill_directory(settings.tiled)
    writer = TiledWriter(catalog, batch_size=BATCH_ROWS, backup_directory=str(backup.with_name(backup.name + "-raw")))
    # In a thread of its own: writing a run takes a second, which the plan must not wait for.
    recorder = BufferingWrapper(writer)
    engine.subscribe(recorder)
    return recorder, catalog, ""


def results_reader(settings: Settings) -> Callable[[str], dict[str, Any]]:
    """Return `results(uid)`, which reads back what was reconstructed from a run."""

    def results(uid: str) -> dict[str, Any]:
        """Return the slices, raw and denoised, and the learning curve of the raw run with that uid, as xarray."""
        # xarray is only needed by who asks.
        from bluesky_jit.results import results as read_back

        return read_back(uid, connect(settings.tiled))

    return results


# ── what a person reads ──────────────────────────────────────────────────────────────────────────────────────────────

TRY = {
    "RE(tomo_scan(turns=5))": "darks, flats, then five turns without stopping",
    'RE(tomo_scan(order="golden", angles_per_turn=30))': "step by golden angles",
    "RE(tomo_step_scan(angles_per_turn=90))": "one event for each angle",
    "RE(count([camera], 3))": "three frames",
    "tomo_scan?": "what can be set",
    "catalog[-1]": "the last run",
    "results(uid)": "its slices, raw and denoised, once the session has recorded them",
}


def show_banner(problems: Sequence[str]) -> None:
    """Say what to type, and what is missing."""
    screen = rich.console.Console()
    lines = rich.table.Table.grid(padding=(0, 3))
    lines.add_column(no_wrap=True)
    for line, meaning in TRY.items():
        lines.add_row(rich.text.Text(line, style="bold"), meaning)
    screen.print(rich.panel.Panel(lines, title="bluesky_jit", expand=False))
    for problem in problems:
        if problem:
            screen.print(problem, style="yellow", markup=False, highlight=False)
