"""The simulated experiments: recordings that are made once, share nothing with each other, and know the truth."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bluesky_jit.bench.experiments import QUICK, SEEDS, TUNING_SEEDS, Recording, recording, seen, slices
from bluesky_jit.bench.pair_source import PairSource
from bluesky_jit.bench.whole_slices import views
from bluesky_jit.learn.presets import preset_named


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture(scope="module")
def recorded(folder: Path) -> Recording:
    return recording(QUICK, "A", 1, 10.0, folder)


def test_nothing_is_measured_on_a_sample_that_was_tuned_on() -> None:
    assert not set(SEEDS) & set(TUNING_SEEDS)


def test_a_recording_is_made_once(recorded: Recording, folder: Path) -> None:
    (path,) = folder.glob("A-1-10s*")
    before = path.stat().st_mtime_ns
    again = recording(QUICK, "A", 1, 10.0, folder)
    assert path.stat().st_mtime_ns == before
    np.testing.assert_array_equal(again.projections, recorded.projections)
    assert not list(folder.glob("*.part"))


def test_slices_show_the_truth_and_noise(recorded: Recording) -> None:
    for view in views(recorded, slices(QUICK, (0.2,))):
        error = (view.raw - view.truth)[view.mask]
        # Noise is what differs; a few sharp edges that 40 projections do not resolve come on top.
        assert view.noise < error.std() < 2 * view.noise
        assert abs(error.mean()) < 0.05 * view.truth.std()


def test_the_middle_of_a_sequence_is_the_slice_on_show(folder: Path) -> None:
    setup = replace(QUICK, turns=3)
    longer = recording(setup, "A", 1, 10.0, folder)
    (view,) = views(longer, {"slice": slices(setup, (0.2,))["horizontal at 0.2"]}, longest=3)
    sequence = view.windows.slab(view.grid, frames=3)
    assert sequence.shape == (3, 1, *view.raw.shape)
    np.testing.assert_allclose(sequence[1, 0], view.raw, atol=1e-6)


@pytest.mark.parametrize(("name", "shape"), [("unet-fast", (1, 1)), ("z3", (1, 3)), ("t3", (3, 1))])
def test_pairs_have_the_frames_and_planes_of_their_preset(
    recorded: Recording, name: str, shape: tuple[int, int]
) -> None:
    pairs = PairSource(recorded, preset_named(name), seed=1).held_out()
    assert pairs.u.shape == (QUICK.held_out, *shape, 20, 20)
    assert not np.array_equal(pairs.u, pairs.v)


def test_the_field_that_every_projection_sees_has_no_corners() -> None:
    mask = seen(QUICK, slices(QUICK, (0.2,))["horizontal at 0.2"])
    assert mask[32, 32]
    assert not mask[0, 0]
    assert mask.mean() == pytest.approx(np.pi / 4, abs=0.02)
