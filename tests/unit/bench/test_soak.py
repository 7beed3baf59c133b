"""What counts as growth, and what a soak fails for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter

import numpy as np
import pytest

from bluesky_jit.bench import soak
from bluesky_jit.bench.soak import Sample, Soaked, growth

MEMORY = attrgetter("rss_mb")


def samples(rss_mb: Sequence[float]) -> list[Sample]:
    return [
        Sample(
            seconds=float(second),
            run=1,
            rss_mb=float(value),
            threads=20,
            files=30,
            disk_mb=1.0,
            compiled_mb=1.0,
            step=second,
            projections=second,
            finite=True,
        )
        for second, value in enumerate(rss_mb)
    ]


STEADY = samples([500.0] * 400)
GOOD = Soaked(samples=STEADY, sent=900, received=900, steps=9, state="idle", message="")


def test_what_fills_at_the_beginning_is_no_growth():
    assert growth(samples([*np.linspace(100, 500, 100), *[500] * 300]), MEMORY) == 0


def test_a_leak_is_growth_and_a_spike_is_not():
    assert growth(samples(np.arange(400.0).tolist()), MEMORY) == pytest.approx(225)
    assert growth(samples([500.0] * 399 + [900.0]), MEMORY) == 0


def one_more_each_minute(name: str) -> list[Sample]:
    return [replace(sample, **{name: 20 + k // 40}) for k, sample in enumerate(STEADY)]


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({"samples": samples(np.arange(400.0).tolist())}, r"memory grew by 225 MB, and may by 32"),
        ({"samples": one_more_each_minute("threads")}, r"threads grew by \d+, and may by 4"),
        ({"samples": one_more_each_minute("files")}, r"open files grew by \d+, and may by 4"),
        ({"samples": [*STEADY, replace(STEADY[-1], disk_mb=100.0)]}, r"folders take 100 MB, and may take 64"),
        ({"samples": [*STEADY, replace(STEADY[-1], finite=False)]}, "were not finite"),
        ({"received": 899}, "1 of 900 frames were lost"),
        ({"steps": 0, "message": "waiting for projections"}, "does not learn: waiting for projections"),
        ({"state": "failed", "message": "stage intake failed"}, "does not learn: stage intake failed"),
    ],
)
def test_a_service_that_grows_loses_diverges_or_does_not_learn_fails(what, words, tmp_path, monkeypatch):
    monkeypatch.setattr(soak, "_soaked", lambda *_: replace(GOOD, **what))
    monkeypatch.setattr(soak, "_draw", lambda *_: None)
    with pytest.raises(RuntimeError, match=words):
        soak.run(tmp_path)
    assert (tmp_path / "soak.json").exists()


def test_a_service_that_does_none_of_that_passes(tmp_path, monkeypatch):
    monkeypatch.setattr(soak, "_soaked", lambda *_: GOOD)
    soak.run(tmp_path)
    assert (tmp_path / "soak.png").exists()
