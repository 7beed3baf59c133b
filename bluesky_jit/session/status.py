"""What is told of a session: its state, and the figures of one of its runs."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from bluesky_jit.messages import Learning, SessionStatus
from bluesky_jit.session.run import LiveRun
from bluesky_jit.session.runs import STALE_S
from bluesky_jit.session.shedding import PAIRS

if TYPE_CHECKING:
    from bluesky_jit.session.wiring import Session


def status_of(session: Session, run: LiveRun | None, *, on_show: bool = True) -> SessionStatus:
    """Return what a session is doing, and how well, with the figures of one run; on_show: whether people see them."""
    problem, now = session.problems.worst(run.uid if run else ""), time.time()
    common = {
        "time_s": now,
        "on_show": on_show,
        "update": session.update_number,
        "backlog": session.backlog.frames,
        "lag_s": max(session.backlog.lag_s, session.inbox.age_s),
        "shed": session.shedding.counts,
        "message": problem.text if problem else "",
        "severity": problem.severity if problem else "NO_ALARM",
    }
    if run is None:
        state = "failed" if session.has_failed else "idle"
        return SessionStatus(state=state, learning=_no_learning(session), **common)
    ledger = run.frames.ledger
    reconstruction = run.reconstruction
    found = reconstruction.found if reconstruction else None
    latest = session.latest_of(run, "XY", "raw")
    projections = ledger.count("projection")
    state = "idle" if run.closed else "stale" if run.stalled_for(STALE_S) else "running"
    return SessionStatus(
        state="failed" if session.has_failed else state,
        run_uid=run.uid,
        scan_id=run.start.scan_id,
        frames_received=ledger.received,
        frames_lost=run.frames_lost,
        frames_missing=ledger.missing,
        frames_late=ledger.late,
        frames_duplicate=ledger.duplicates,
        frames_corrupt=ledger.corrupt,
        frames_tapped=ledger.tapped,
        frames_backfilled=ledger.backfilled,
        darks=ledger.count("dark"),
        flats=ledger.count("flat"),
        projections=projections,
        turns=projections / run.angles_per_turn if run.geometry else 0.0,
        window=reconstruction.window_count if reconstruction else 0,
        updates_per_s=_rate(session.update_times, now) if on_show else 0.0,
        recon_time_ms=session.recon_time_ms,
        latency_ms=latest.latency_ms if latest else float("nan"),
        clipped_fraction=reconstruction.clipped_fraction if reconstruction else 0.0,
        zingers_per_frame=found.zingers_per_frame if found else 0.0,
        beam_level=found.beam.level if found and found.beam else float("nan"),
        axis_offset_mm=reconstruction.geometry.axis_offset_mm if reconstruction else 0.0,
        axis_estimate_mm=run.axis.offset_mm if run.axis else float("nan"),
        axis_column=run.axis.column if run.axis else float("nan"),
        axis_confidence=run.axis.confidence if run.axis else 0.0,
        axis_reason=run.axis.reason if run.axis else "",
        angle_source=run.angle_source,
        flats_used=run.flats,
        learning=_learning(session, run),
        **common,
    )


def _learning(session: Session, run: LiveRun) -> Learning:
    if not run.learner or session.learning_is_lost:
        return _no_learning(session, run.learning_problem)
    learning = run.learning(paused=session.paused)
    if run.stand_in:
        learning = replace(learning, reason=f"{learning.reason}; without flats of this run ({run.stand_in})")
    if session.shedding.level < PAIRS:
        return learning
    return replace(learning, reason=f"learning waits for frames that come too fast; {learning.reason}")


def _no_learning(session: Session, problem: str = "") -> Learning:
    learn = session.settings.learn
    reason = problem or ("waiting for projections" if learn.enabled else "learning is switched off")
    if session.learning_is_lost:
        reason = "learning has failed: see the log, and restart the service"
    return Learning(reason=reason, preset=learn.preset, paused=session.paused)


def _rate(times: deque[float], now: float, span_s: float = 3.0) -> float:
    recent = [time_s for time_s in list(times) if now - time_s < span_s]
    return len(recent) / span_s
