"""Learning online with a jump: what recovery means, and who sees what."""

from pathlib import Path

import numpy as np
import pytest

from bluesky_jit.bench import fig10
from bluesky_jit.bench.online import Strategy, follow
from bluesky_jit.learn.presets import preset_named


def test_recovery_is_when_accuracy_stays_near_its_last_value() -> None:
    later = np.array([0.1, 0.2, 0.4, 0.8])
    assert fig10.recovery(later, np.array([0.7, 0.55, 0.505, 0.5])) == 0.4
    assert fig10.recovery(later, np.array([0.505, 0.7, 0.505, 0.5])) == 0.4
    assert fig10.recovery(later, np.array([0.5, 0.5, 0.5, 0.5])) == 0.0


def test_without_a_buffer_each_batch_is_trained_on_once(tmp_path: Path) -> None:
    what = fig10.replay(tmp_path, quick=True)
    alone = follow(Strategy(name="alone", preset="unet-fast", buffer=0), what)
    buffered = follow(Strategy(name="buffered", preset="unet-fast", buffer=64), what)
    # While it waits for the next batch, others take as many steps as the paper's network took.
    assert alone.steps[-1] < buffered.steps[-1] / 4
    assert alone.seconds[-1] >= what.end_s


def test_accuracy_is_measured_where_patches_come_from(tmp_path: Path) -> None:
    what = fig10.replay(tmp_path, quick=True)
    found = follow(Strategy(name="ours", preset="unet-fast", buffer=64, steps_per_batch=4), what)
    assert len(found.accuracy["held-out"]) == len(what.moments_s)
    assert what.weights("ours", "before").exists()
    assert what.weights("ours", "after").exists()
    top, bottom = (what.source(preset_named("unet-fast"), part, held_out=True).held_out() for part in ("top", "bottom"))
    assert bottom.u.mean() != pytest.approx(top.u.mean(), rel=0.05)
