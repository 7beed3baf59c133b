"""What counts as growth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from bluesky_jit.bench import soak
from bluesky_jit.bench.soak import Sample, growth_mb
from bluesky_jit.messages import Learning, SessionStatus


def samples(rss_mb: Sequence[float], *, finite: bool = True) -> list[Sample]:
    return [
        Sample(seconds=float(second), rss_mb=float(value), step=second, projections=second, finite=finite)
        for second, value in enumerate(rss_mb)
    ]


def test_what_fills_at_the_beginning_is_no_growth():
    assert growth_mb(samples([*np.linspace(100, 500, 100), *[500] * 300])) == 0


def test_a_leak_is_growth_and_a_spike_is_not():
    assert growth_mb(samples(np.arange(400.0))) == pytest.approx(225)
    assert growth_mb(samples([500.0] * 399 + [900.0])) == 0


@pytest.mark.parametrize(
    ("found", "step", "words"),
    [
        (samples(np.arange(400.0)), 9, r"memory grew by 225 MB, and may by 32"),
        (samples([500.0] * 400, finite=False), 9, "weights were not finite"),
        (samples([500.0] * 400), 0, r"does not learn \(waiting for projections\)"),
    ],
)
def test_a_session_that_grows_diverges_or_does_not_learn_fails(found, step, words, tmp_path, monkeypatch):
    status = SessionStatus(time_s=0.0, learning=Learning(step=step))
    monkeypatch.setattr(soak, "_soaked", lambda taken, seconds: (found, status))
    monkeypatch.setattr(soak, "recording", lambda *_: None)
    with pytest.raises(RuntimeError, match=words):
        soak.run(tmp_path, cache=tmp_path)
    assert (tmp_path / "soak.json").exists()
