"""Benchmarks: the reduced pass measures every figure of its family (how large they are is no matter here)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system


@pytest.mark.timeout(200)
def test_the_live_family_measures_what_it_promises(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EPICS_")}
    done = subprocess.run(
        [sys.executable, "-m", "bluesky_jit.cli", "bench", "live", "--quick", "--output", str(tmp_path / "out")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = {figure["name"]: figure for figure in json.loads((tmp_path / "out" / "live.json").read_text())["figures"]}
    p99 = figures["forwarding a document, p99"]
    assert (p99["goal"], p99["unit"]) == (1.0, "ms")
    assert p99["value"] > 0
    assert p99["peer"] > 0
    assert figures["session in the same process, p99"]["value"] > 0
    assert figures["exposure to slice, median"]["value"] > 0
    assert (tmp_path / "out" / "live.png").read_bytes().startswith(b"\x89PNG")
