"""What the pairs and trainer stages share of one run: pairs are made in one thread, learned from in another."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from bluesky_jit.learn.automatic import Pace
from bluesky_jit.learn.buffer import PairBuffer
from bluesky_jit.learn.noise2inverse import PatchSampler
from bluesky_jit.learn.presets import preset_named
from bluesky_jit.learn.region_finder import RegionFinder
from bluesky_jit.learn.segmenter import Segmenter
from bluesky_jit.learn.weights import Weights
from bluesky_jit.messages import Learning, Pairs
from bluesky_jit.session.couplings import Latest
from bluesky_jit.session.learning.choosing import AUTO, Choosing, Chosen, depth_of
from bluesky_jit.session.learning.held_out import HeldOutWindows
from bluesky_jit.session.learning.judging import Doubt, FailedJudgement, Judging, smoothed
from bluesky_jit.session.learning.model_files import ModelFiles
from bluesky_jit.session.learning.pair_making import PairMaking, Unseen, WholeSlice
from bluesky_jit.session.rates import Rates
from bluesky_jit.settings_sections import LearnSettings
from bluesky_jit.tomo.geometry import Geometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.reconstructor import Reconstructor

SNAPSHOT_EVERY = 20
"""Steps between two snapshots of the weights: some twenty a second, more often than slices are shown."""

TRIAL_BUFFER = 640
"""Pairs kept while presets are tried: between the bounds of what is chosen then."""

TRIAL_PATCH = 20
"""Points along each side of patches while presets are tried: what all that are tried have."""

WHOLE_FRACTIONS = {"mixed": 0.25, "near": 0.0, "whole": 1.0}
"""Parts of the patches that come from the whole region."""


class Learner:
    """Learn to denoise one run. `make_batch` belongs to the pairs stage, `train` and `judge` to the trainer stage."""

    def __init__(
        self,
        settings: LearnSettings,
        geometry: Geometry,
        voxel_mm: float,
        *,
        windows: HeldOutWindows,
        files: ModelFiles,
        pace: Callable[[float], Pace],
    ) -> None:
        """Begin; pace: what has to be kept up with, given the pairs that are made in a second."""
        if 0 < settings.buffer < settings.batch:
            raise ValueError(
                f"learn.buffer is {settings.buffer} and learn.batch {settings.batch}: give room for at least a batch"
            )
        self._settings = settings
        self._geometry = geometry
        self._voxel_mm = voxel_mm
        self._windows = windows
        self._files = files
        self._resets = threading.Event()
        self._rates = Rates("pushed", "sampled", "steps")
        self._steps = 0
        self._loss = math.nan
        self._segmenter = Segmenter(seed=settings.seed) if settings.segment else None
        self._judging = Judging(splits=settings.splits, memory_gb=settings.inference_memory_gb)
        self._choosing = Choosing(
            settings.preset,
            seed=settings.seed,
            pace=lambda: pace(self._rates["pushed"]),
            nearest=files.nearest,
            measure=files.measure,
        )
        windows.trained_to = files.resume(self._choosing)
        self._making = self._make_making(self._choosing.chosen)
        self.doubts: Latest[Doubt] = Latest()
        """What was taken away from whole slices, to be shown."""
        self.weights: Weights | None = None
        """The newest snapshot: replaced, never changed."""
        self.segmentation: Weights | None = None
        """The newest snapshot of the network that segments, once it does better than a threshold."""

    def _make_making(self, chosen: Chosen | None = None) -> PairMaking:
        """Make what makes pairs, for the preset of the settings or the one that was chosen."""
        settings = self._settings
        preset = chosen.preset if chosen else None if settings.preset == AUTO else preset_named(settings.preset)
        capacity = TRIAL_BUFFER if preset is None else settings.buffer
        fraction = WHOLE_FRACTIONS[settings.patches]
        if chosen and chosen.buffer is not None:
            capacity = chosen.buffer
        if chosen and chosen.whole_fraction is not None:
            fraction = chosen.whole_fraction
        depth = preset.depth if preset else depth_of(AUTO)
        patch = settings.patch or (preset.patch if preset else TRIAL_PATCH)
        finder = RegionFinder(settings, self._geometry, patch_mm=patch * self._voxel_mm)
        sampler = PatchSampler(
            finder.region,
            voxel_mm=self._voxel_mm,
            patch=patch,
            batch=settings.batch,
            depth=depth,
            seed=settings.seed,
            whole_fraction=fraction,
        )
        # Views of unequal noise, of more than two splits, are not to change places.
        buffer = PairBuffer(capacity, seed=settings.seed, swap=settings.splits == 2)
        return PairMaking(
            finder, sampler, buffer, self._windows, depth=depth, seed=settings.seed, compare=preset is None
        )

    # ── anybody's ────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def ready(self) -> bool:
        """Whether the denoised slice has been shown to beat the raw one."""
        return self._judging.readiness.ready and self.weights is not None

    @property
    def accuracy(self) -> float:
        return self._judging.accuracy

    def reset(self) -> None:
        """Ask for a fresh start: new weights, an empty buffer."""
        self._resets.set()

    def flush(self) -> None:
        """Empty the buffer; the weights stay."""
        self._making.buffer.flush()

    def learning(self, *, paused: bool) -> Learning:
        """Return what people are told."""
        counts, judging, model = self._making.buffer.counts(), self._judging, self._choosing.model
        residual = judging.residual
        return Learning(
            step=model.step,
            loss=self._loss,
            accuracy=judging.accuracy,
            held_out=judging.held_out,
            unseen=judging.unseen,
            whole_slice=judging.whole_slice,
            residual_variance=residual.variance_ratio if residual else math.nan,
            residual_correlation=residual.correlation if residual else math.nan,
            residual_verdict=residual.verdict if residual else "",
            drift=judging.drift,
            jumps=judging.jumps,
            refused=model.refused,
            ready=self.ready,
            reason=f"learning is paused; {judging.readiness.reason}" if paused else judging.readiness.reason,
            preset=model.preset.name,
            chosen=self._choosing.reason,
            pairs=counts.pushed,
            buffered=counts.buffered,
            picks_per_pair=counts.picks_per_pair,
            pairs_per_s=self._rates["pushed"],
            samples_per_s=self._rates["sampled"],
            steps_per_s=self._rates["steps"],
            paused=paused,
        )

    # ── the pairs stage's ────────────────────────────────────────────────────────────────────────────────────────────

    def make_batch(self, reconstruction: Reconstructor, shown: dict[str, Grid], *, train: bool = True) -> bool:
        """Make the next pairs, to train on or to judge by; return whether any were wanted."""
        return self._making.make(reconstruction, shown, train=train)

    # ── the trainer stage's ──────────────────────────────────────────────────────────────────────────────────────────

    def train(self) -> bool:
        """Take one step and judge the result; return False when there is nothing to learn from yet."""
        judged = self.judge()
        self._watch_incoming()
        making, batch = self._making, self._settings.batch
        if len(making.buffer) < (batch if making.buffer.capacity else 1):
            return judged
        pairs = making.buffer.sample(batch)
        self._loss = smoothed(self._loss, self._choosing.train_step(pairs))
        self._steps += 1
        if self._segmenter is not None:
            self._segmenter.train_step(pairs)
        settled = self._choosing.settled()
        if settled is not None:
            self._adopt(settled)
        if self._steps % SNAPSHOT_EVERY == 0 or settled is not None:
            self._take_snapshot()
        return True

    def judge(self, *, learning: bool = True) -> bool:
        """Judge by what the pairs stage has made to judge by; return whether there was anything.

        learning: whether the weights change; while they do not, figures do not grow old.
        """
        # Here, for while training is paused this is all that is done.
        if self._resets.is_set():
            self._start_afresh()
        making, judging = self._making, self._judging
        counts = making.buffer.counts()
        self._rates.update(pushed=counts.pushed, sampled=counts.sampled, steps=self._steps)
        if making.guard_moved.is_set():
            making.guard_moved.clear()
            making.guard.take()
            judging.guard_has_moved()
        if making.jumped.is_set():
            making.forget_judged_by()
        guard, unseen, whole = making.guard.take(), making.unseen.take(), making.whole.take()
        passed = False
        try:
            self._judge(guard, unseen, whole)
            passed = judging.passed_unseen
        except ValueError as error:
            raise FailedJudgement(str(error)) from error
        finally:
            # A window without an answer would keep all that comes from training for good.
            if unseen is not None:
                unseen.passed.put(passed)
        judging.show(making.shown)
        judging.readiness.judge(learning=learning)
        making.worth_judging = judging.promising
        return guard is not None or unseen is not None or whole is not None

    def _judge(self, guard: Pairs | None, unseen: Unseen | None, whole: WholeSlice | None) -> None:
        """Judge by what has been made to judge by."""
        making, judging, choosing = self._making, self._judging, self._choosing
        if guard is not None:
            choosing.judge(guard, making.anywhere.take())
            self._judge_segmentation(guard)
        has_learned = choosing.model.step > 0
        if choosing.is_trying:
            judging.readiness.reset("presets are being compared")
        elif guard is not None and has_learned:
            judging.guard(choosing.model, guard)
        wholes = [whole] if whole is not None else []
        if unseen is not None and self.weights is not None:
            judging.unseen_window(choosing.model, self.weights, unseen)
            wholes += unseen.slices
        for one in wholes:
            if self.weights is not None:
                self.doubts.put(judging.whole(self.weights, one))

    def finish(self) -> None:
        """Keep what was learned, once the run has ended, if slices were denoised with it to the end."""
        weights = self.weights
        if weights is None or not self.ready:
            return
        judging = self._judging
        figures = {
            "accuracy": judging.accuracy,
            "held_out": judging.held_out,
            "unseen": judging.unseen,
            "whole_slice": judging.whole_slice,
        }
        self._files.keep(weights, preset_named(weights.preset), figures)

    def _watch_incoming(self) -> None:
        """Judge pairs before they are trained on; when they jump, the old ones are of no use any more."""
        making = self._making
        held_back = making.incoming.take()
        fresh = making.buffer.fresh()
        pairs = held_back if making.is_cut else fresh
        if pairs is None or self._choosing.is_trying or not self._judging.incoming(self._choosing.model, pairs):
            return
        making.buffer.flush()
        if not making.is_cut:
            making.buffer.push(pairs)
            # They were judged a moment ago.
            making.buffer.fresh()
        # Nothing is to be kept back from now on.
        making.worth_judging = False
        making.jumped.set()
        making.forget_judged_by()
        self._choosing.model.restart_average()

    def _judge_segmentation(self, held_out: Pairs) -> None:
        """Show a segmentation as long as it misses fewer labels, of pairs never trained on, than a threshold does."""
        if self._segmenter is not None:
            better = self._segmenter.accuracy(held_out).value < 1
            self.segmentation = self._segmenter.snapshot() if better else None

    def _adopt(self, chosen: Chosen) -> None:
        """Go on with what was chosen, with pairs of its shape."""
        if chosen.buffer is not None:
            self._making = self._make_making(chosen)
        self._judging.start_afresh("waiting for a held-out accuracy of what was chosen")

    def _take_snapshot(self) -> None:
        if self._choosing.is_trying:
            return
        self.weights = self._choosing.model.snapshot()
        self._files.checkpoint(self._choosing, self._windows.trained_to)

    def _start_afresh(self) -> None:
        self._resets.clear()
        self._choosing.start_afresh()
        if self._segmenter is not None:
            self._segmenter.reset()
        self.segmentation = None
        self._making = self._make_making()
        self._judging.start_afresh("learning was started afresh")
        self._loss = math.nan
        self.weights = None
