"""`bluesky-jit replay`: play a stored scan into a session of its own, to a running serve, or into Tiled."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from bluesky_jit.cli.found_settings import contradictions
from bluesky_jit.cli.scan_source import Load, find_scan, log_above
from bluesky_jit.intake.replay import Rate, order_of, replay
from bluesky_jit.intake.setup import tomo_block
from bluesky_jit.intake.stored_scan import StoredScan
from bluesky_jit.settings import Settings
from bluesky_jit.settings_sections import TiledSettings
from bluesky_jit.tomo.corrections.rings import BLOCKS, widest_ring

if TYPE_CHECKING:
    from bluesky_jit.intake.recorded_frames import RecordedScan

logger = logging.getLogger(__name__)

Emit = Callable[[str, dict[str, Any]], None]
LISTENER_S = 5.0
"""How long is waited for a running serve."""
BATCH_FRAMES = 25
"""Frames sent to Tiled at a time: a request takes some 30 ms, whatever it carries."""
PATCH = 20
"""Rows of a training patch, where the settings name no other (docs/reference/presets.md)."""
RING_WIDTH = 3
"""Pixels of the widest ring that is removed by default (docs/how-to/remove-rings-and-retrieve-phase.md). At 9 and more
TomoPy's tooth gets dark bands of its own."""
NAMED = 10
"""Frames left out that the console names one by one; the figures name them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """Say how a scan is to be played, and where to; learn_s: how long at most a session learns on afterwards."""

    rate: Rate = "full"
    turns: int = 1
    to: str = "session"
    learn_s: float = 120.0

    @property
    def target(self) -> Literal["session", "serve", "tiled"]:
        """Return the kind of place; raise ValueError for what is none."""
        if self.to in ("session", "serve", "tiled"):
            return self.to
        if self.to.startswith(("http://", "https://")):
            return "tiled"
        raise ValueError(f"--to is {self.to}: give session, serve, tiled, or the address of a Tiled server (http://…)")


class LeftOut:
    """Keep what is left out, and tell of the first of them one by one."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def __call__(self, sentence: str) -> None:
        self.sentences.append(sentence)
        if len(self.sentences) <= NAMED:
            logger.warning(sentence)
        elif len(self.sentences) == NAMED + 1:
            logger.warning("more frames are left out; the figures will name them all")


class Bars:
    """Show how far a replay is."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console)
        self._tasks: dict[str, TaskID] = {}

    def advance(self, doing: str, done: float, total: float, note: str = "") -> None:
        if doing not in self._tasks:
            self._progress.start()
            self._tasks[doing] = self._progress.add_task(doing, total=total)
        self._progress.update(self._tasks[doing], completed=done, total=total, description=f"{doing}{note}")

    def stop(self) -> None:
        self._progress.stop()


def replay_source(source: str, load: Load, play: Play, *, output: Path | None = None) -> None:
    """Play a file, a folder or a run in Tiled; output: a session's folder for pictures and figures."""
    if play.turns < 1:
        raise ValueError(f"--turns is {play.turns}: give 1 or more")
    if not 0 <= play.learn_s < math.inf:
        raise ValueError(f"--learn is {play.learn_s:g}: give a number of seconds, or 0 for no learning afterwards")
    target, settings = play.target, load()
    folder = output or Path("jit-data") / time.strftime("replay-%Y%m%d-%H%M%S")
    if target == "session":
        from bluesky_jit.cli.replay_session import require_new_results

        require_new_results(folder)
    progress = Console(stderr=True)
    bars = Bars(progress)
    with log_above(progress), find_scan(source, settings) as scan:
        known = load(defaults_of(scan, settings))
        for sentence in contradictions(scan.says, known):
            logger.warning("%s: %s", scan.name, sentence)
        if target == "session" and known.tomo.ring_width and not settings.tomo.ring_width:
            logger.info("rings are removed, up to %d pixels wide; tomo.ring_width=0 keeps them", known.tomo.ring_width)
        left_out = LeftOut()
        for sentence in scan.lost:
            left_out(f"{sentence}: it is left out")
        if play.turns > 1:
            logger.warning("the same noise comes again each turn: learning is judged by what it has seen before")
        try:
            if target == "session":
                from bluesky_jit.cli.replay_session import play_in_session

                play_in_session(scan, known, tomo_of_scan(scan, known), play, folder, bars, left_out)
            elif target == "serve":
                _play_to_serve(scan, known, play, bars, left_out)
            else:
                _play_into_tiled(scan, known, play, bars, left_out)
        finally:
            bars.stop()


def defaults_of(scan: StoredScan | RecordedScan, settings: Settings) -> dict[str, Mapping[str, Any]]:
    """Return what settings are where nobody has set them: as the scan says, and fit for what it covers."""
    per_turn = scan.tomo.get("n_angles_per_rotation") or order_of(scan.angles_rad)["n_angles_per_rotation"]
    # A window longer than the scan would wait for projections that never come.
    tomo = {"axis": "estimate", "turns": min(1.0, scan.n_taken / per_turn)}
    # Patches of the sample alone are then too few and too alike to tell surely how good the network is: TomoPy's tooth,
    # of two rows, was ready within 600 steps this way, and not within 1600 otherwise.
    few_rows = {"learn": {"region": "field"}} if scan.frame_shape[0] < (settings.learn.patch or PATCH) else {}
    # Both halves of a pair have the same rings: the network would learn to keep them.
    width = min(RING_WIDTH, widest_ring(scan.frame_shape[1]))
    enough = min(scan.n_taken, per_turn // 2) >= BLOCKS
    rings = {"ring_width": width} if width and enough else {}
    return {**scan.says, "tomo": {**tomo, **rings, **scan.says.get("tomo", {})}, **few_rows}


def tomo_of_scan(scan: StoredScan | RecordedScan, settings: Settings) -> dict[str, Any]:
    """Return the `tomo` block that a live run of this scan would have."""
    said = {key: value for key, value in scan.tomo.items() if value is not None and key not in ("dark_flat_uid", "pva")}
    energy = {} if settings.tomo.energy_kev is None else {"energy_kev": settings.tomo.energy_kev}
    return {**tomo_block(settings.geometry), **energy, **said}


class Counting:
    """Pass documents on with a bar that counts frames, those that are left out included."""

    def __init__(
        self, emit: Emit, scan: StoredScan | RecordedScan, turns: int, bars: Bars, left_out: Callable[[str], None]
    ) -> None:
        self._emit, self._bars, self._left_out, self._doing = emit, bars, left_out, scan.called
        self._total = sum(n * (turns if kind == "projection" else 1) for kind, n in scan.counts.items())
        self._done = 0

    def __call__(self, name: str, document: dict[str, Any]) -> None:
        self._emit(name, document)
        if name == "event":
            self._advance()

    def leave_out(self, sentence: str) -> None:
        """Count a frame that cannot be used, and pass on why."""
        self._left_out(sentence)
        self._advance()

    def _advance(self) -> None:
        self._done += 1
        self._bars.advance(self._doing, self._done, self._total)


def _play_to_serve(
    scan: StoredScan | RecordedScan, settings: Settings, play: Play, bars: Bars, left_out: LeftOut
) -> None:
    """Publish a scan's documents, as a RunEngine does; at full speed no faster than the service takes them."""
    from bluesky_jit.intake.wire import DocumentPublisher

    publisher = DocumentPublisher(settings.serve.publish_address, curve_folder=settings.serve.curve_folder)
    try:
        if not publisher.wait_for_listener(LISTENER_S):
            raise RuntimeError(
                f"nobody listens at {settings.serve.publish_address}: start `bluesky-jit serve` with the same settings"
            )
        with _in_step(publisher, settings, play) as emit:
            counting = Counting(emit, scan, play.turns, bars, left_out)
            tomo = tomo_of_scan(scan, settings)
            uid = replay(scan, counting, tomo=tomo, rate=play.rate, turns=play.turns, told=counting.leave_out)
    finally:
        publisher.close()
    Console().print(f"played as run {uid}", soft_wrap=True)


@contextmanager
def _in_step(emit: Emit, settings: Settings, play: Play) -> Iterator[Emit]:
    """Return `emit`, which at full speed waits for the service to have taken what was sent before."""
    if play.rate != "full":
        yield emit
        return
    from bluesky_jit.cli.replay_flow import Flow, counted_by_pvs

    if not settings.epics.enabled:
        raise ValueError(
            "at full speed a service without PVs (epics.enabled) cannot say how many frames it has taken: give a rate, "
            "--rate HZ"
        )
    with counted_by_pvs(settings) as (taken, says):
        yield Flow(emit, taken, most=settings.intake.queue_frames // 2, says=says)


def _play_into_tiled(
    scan: StoredScan | RecordedScan, settings: Settings, play: Play, bars: Bars, left_out: LeftOut
) -> None:
    """Record a scan as a raw run, as a RunEngine's would be."""
    from bluesky_tiled_plugins import TiledWriter

    from bluesky_jit.archive import address, answering, connect_now, raw_catalog

    # The settings' key is for the settings' server.
    server = settings.tiled if play.to == "tiled" else TiledSettings(uri=play.to)
    if not server.uri:
        raise ValueError("--to tiled needs tiled.uri: set it, or give the address of a Tiled server, --to http://…")
    client = connect_now(server)
    place = address(server.uri)
    try:
        with answering(place):
            writer = TiledWriter(raw_catalog(client), batch_size=BATCH_FRAMES)
            tomo = {key: value for key, value in tomo_of_scan(scan, settings).items() if value is not None}
            counting = Counting(writer, scan, play.turns, bars, left_out)
            uid = replay(scan, counting, tomo=tomo, rate=play.rate, turns=play.turns, told=counting.leave_out)
    finally:
        client.context.close()
    Console().print(f"recorded as run {uid} in Tiled at {place}; bluesky-jit reconstruct {uid[:8]} …", soft_wrap=True)
