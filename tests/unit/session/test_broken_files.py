"""Files that are cut off in mid-run: what can be read is used with its own angle, the rest counted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from numbered_runs import ANGLES, ROWS_AT_ONCE
from numbered_session import SOON_S, numbered_session
from simulated_run import TOMO

from bluesky_jit import Session
from bluesky_jit.messages import RunStart, RunStop
from bluesky_jit.session.intake_stage import Intake
from bluesky_jit.settings import load_settings


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.6, 0.9])
def test_a_file_that_is_truncated_in_mid_run_costs_what_it_lost_only(tmp_path: Path, kept: float) -> None:
    with numbered_session(tmp_path) as bench:
        documents = bench.documents(1, filed=True)
        # All but the stop document, and the last three rows of each of the four columns.
        before, after = documents[:-5], documents[-5:]
        bench.send(before)
        assert bench.session.wait_for(lambda status: status.projections == ANGLES - ROWS_AT_ONCE, SOON_S)
        path = tmp_path / "1-projection.h5"
        os.truncate(path, int(kept * path.stat().st_size))
        bench.send(after)
        uid = documents[0][1]["uid"]
        bench.wait_until_ended(uid)
        used, status = bench.frames(uid, 1)["projection"], bench.sink.last_status(uid)
        assert used[: ANGLES - ROWS_AT_ONCE] == list(range(ANGLES - ROWS_AT_ONCE))
        assert (status.projections, status.frames_lost) == (len(used), ANGLES - len(used))
        bench.check_that_the_next_run_works(filed=True)


def test_frames_of_which_nobody_said_where_they_are_are_lost() -> None:
    session = Session(load_settings(environment={}, learn={"enabled": False}), sinks=[])
    intake = Intake(session)
    intake.handle(RunStart(run_uid="r", scan_id=1, plan_name="", time_s=1.0, tomo=TOMO))
    intake.handle(RunStop(run_uid="r", time_s=2.0, exit_status="success", unlocated={"projection": 90, "flat": 5}))
    intake.step()
    assert (session.status.frames_lost, session.status.frames_received) == (95, 0)
