"""What the figures of the trainer stage are worth, whatever the sizes of batches and patches."""

from __future__ import annotations

import numpy as np
import pytest
from learning_run import LearningRun, small_frames

from bluesky_jit.learn.presets import Preset, preset_named
from bluesky_jit.learn.quality.accuracy import Accuracy, accuracy_of_patches, middle
from bluesky_jit.messages import Pairs
from bluesky_jit.session.learning.judging import Judging

NO_BETTER_THAN_RAW = 0.76
MUCH_BETTER = 0.55


class NoiseKept:
    """A model of a given accuracy: it returns the truth, nothing, and so much noise of its own."""

    def __init__(self, accuracy: float) -> None:
        self.preset: Preset = preset_named("unet-fast")
        self._noise = np.sqrt(2 * accuracy - 1)
        self._rng = np.random.default_rng(1)

    def accuracy(self, pairs: Pairs) -> Accuracy:
        denoised = self._noise * self._rng.normal(size=middle(pairs.u).shape)
        return accuracy_of_patches(denoised, pairs)


def times_ready(accuracy: float, *, batch: int, patch: int, runs: int = 100, evaluations: int = 30) -> int:
    """Return in how many runs slices would have been shown at least once."""
    rng, shown = np.random.default_rng(0), 0
    for _ in range(runs):
        judging, model = Judging(splits=2, memory_gb=1.0), NoiseKept(accuracy)
        for _ in range(evaluations):
            u, v = rng.normal(size=(2, batch, 1, 1, patch, patch)).astype(np.float32)
            judging.guard(model, Pairs(u=u, v=v))  # type: ignore[arg-type]
            if judging.readiness.ready:
                shown += 1
                break
    return shown


@pytest.mark.parametrize(("batch", "patch"), [(2, 8), (4, 8), (32, 8), (1, 32)])
def test_luck_shows_no_network_that_is_no_better_than_raw_however_small_batches_are(batch, patch):
    assert times_ready(NO_BETTER_THAN_RAW, batch=batch, patch=patch) == 0


@pytest.mark.parametrize(("batch", "patch"), [(32, 8), (32, 20)])
def test_a_good_network_is_shown_after_a_few_evaluations(batch, patch):
    assert times_ready(MUCH_BETTER, batch=batch, patch=patch, runs=20, evaluations=5) == 20


@pytest.mark.parametrize(("batch", "judged"), [(1, 32), (20, 40), (32, 32)])
def test_the_guard_figure_comes_from_whole_batches_of_at_least_32_patches(batch, judged):
    run = LearningRun(small_frames(turns=1), batch=batch)
    run.push(90)
    assert run.run.reconstruction is not None
    run.learner.make_batch(run.run.reconstruction, run.shown)
    guard = run.learner._making.guard.take()
    assert guard is not None
    assert len(guard.u) == judged
