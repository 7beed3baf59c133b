"""The soak: a service under runs one after another, seen from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system


@pytest.mark.timeout(200)
def test_a_short_soak_loses_nothing_learns_and_writes_what_it_saw(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bluesky_jit.cli", "bench", "soak", "--quick", "--output", str(tmp_path / "out")],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads((tmp_path / "out" / "soak.json").read_text())
    figures = {figure["name"]: figure for figure in written["figures"]}
    assert figures["memory gained"]["goal"] == 32.0
    assert {"threads gained", "open files gained", "disk taken"} <= set(figures)
    assert figures["frames lost"]["value"] == 0
    assert figures["samples that are finite"]["value"] == 1.0
    assert figures["projections taken"]["value"] > 0
    assert figures["training"]["value"] > 0
    assert written["samples"][-1]["rss_mb"] > 0
    assert (tmp_path / "out" / "soak.png").read_bytes().startswith(b"\x89PNG")
