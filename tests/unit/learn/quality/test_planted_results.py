"""Wrong results are planted, and readiness must say so and name it; an honest network must be shown."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from bluesky_jit.learn.quality.accuracy import accuracy_of_slice
from bluesky_jit.learn.quality.readiness import Readiness
from bluesky_jit.learn.quality.residual import residual_figure

Network = Callable[[np.ndarray], np.ndarray]


def judged(network: Network, sample, *, feature: Callable | None = None) -> Readiness:
    """Judge a network as the session does: a guard figure, an unseen scan, whole slices, residuals.

    feature(seen): something that is added to the sample.
    """
    readiness = Readiness(evaluations=1)
    for name, scans in sample.shown.items():
        learnt_from, unseen = (seen if feature is None else seen.with_feature(feature(seen)) for seen in scans)
        readiness.update(accuracy_of_slice(network(learnt_from.u), learnt_from.u, learnt_from.v, mask=learnt_from.mask))
        of_unseen = accuracy_of_slice(network(unseen.u), unseen.u, unseen.v, mask=unseen.mask)
        readiness.unseen(of_unseen)
        readiness.whole(name, of_unseen)
        denoised = network(unseen.raw)
        readiness.residual(name, residual_figure(unseen.raw, denoised, unseen.u, unseen.v, mask=unseen.mask))
    return readiness


def drawn(seen, kind: str) -> np.ndarray:
    """Return a texture, or twenty spots, three points across and eight times as strong as a raw pixel's noise."""
    rng = np.random.default_rng(0)
    if kind == "texture":
        texture = gaussian_filter(rng.normal(size=seen.truth.shape), 1.5)
        return (seen.noise / texture.std() * texture).astype(np.float32)
    spots = np.zeros(seen.truth.shape)
    places = np.argwhere(seen.mask)
    spots[tuple(places[rng.integers(len(places), size=20)].T)] = 1
    spots = gaussian_filter(spots, 1.5)
    return (8 * seen.noise / spots.max() * spots).astype(np.float32)


def pore(seen) -> np.ndarray:
    """Return a hole of seven points across, eight times as strong as a raw pixel's noise."""
    ny, nx = seen.truth.shape
    y, x = np.mgrid[:ny, :nx]
    inside = np.hypot(y - 0.4 * ny, x - 0.6 * nx) < 3.5
    return np.float32(-8 * seen.noise) * inside.astype(np.float32)


@pytest.mark.parametrize("experiment", ["A", "B"])
def test_an_honest_network_is_ready(samples, networks, experiment):
    readiness = judged(networks[experiment], samples[experiment])
    assert readiness.ready, readiness.reason
    assert "better than the raw slice" in readiness.reason
    assert readiness.held_out < 0.65


@pytest.mark.parametrize("experiment", ["A", "B"])
@pytest.mark.parametrize(
    ("width", "words"), [(0.0, "noise kept"), (1.0, "blurred"), (2.0, "blurred")], ids=["identity", "blur 1", "blur 2"]
)
def test_a_network_that_changes_nothing_or_blurs_is_not_ready(samples, experiment, width, words):
    readiness = judged(partial(gaussian_filter, sigma=width) if width else lambda image: image, samples[experiment])
    assert not readiness.ready
    assert words in readiness.reason


@pytest.mark.parametrize("experiment", ["A", "B"])
@pytest.mark.parametrize(
    ("kind", "words"), [("texture", "structure lost or invented everywhere"), ("spots", "invented")]
)
def test_a_network_that_invents_structure_is_not_ready(samples, networks, experiment, kind, words):
    sample, network = samples[experiment], networks[experiment]
    drawings = {scans[0].truth.shape: drawn(scans[0], kind) for scans in sample.shown.values()}
    readiness = judged(lambda image: network(image) + drawings[image.shape], sample)
    assert not readiness.ready
    assert words in readiness.reason


@pytest.mark.parametrize("experiment", ["A", "B"])
def test_a_network_that_removes_a_fine_feature_is_not_ready_though_its_accuracy_is_good(samples, networks, experiment):
    """The pore is in the sample, and a network that has a healthy sample by heart gives the slice without it."""
    sample, network = samples[experiment], networks[experiment]
    holes = {scans[0].truth.shape: pore(scans[0]) for scans in sample.shown.values()}
    readiness = judged(
        lambda image: network(image - holes[image.shape]), sample, feature=lambda seen: holes[seen.truth.shape]
    )
    assert not readiness.ready
    assert readiness.held_out < 0.72
    assert "a feature lost" in readiness.reason


@pytest.mark.parametrize("experiment", ["A", "B"])
def test_a_network_with_a_constant_offset_is_not_ready_though_its_accuracy_is_good(samples, networks, experiment):
    sample, network = samples[experiment], networks[experiment]
    noise = sample.shown["XZ"][0].noise
    readiness = judged(lambda image: network(image) + np.float32(0.5 * noise), sample)
    assert not readiness.ready
    assert readiness.held_out < 0.72
    assert "offset" in readiness.reason
    assert "too bright" in readiness.reason


def test_a_network_of_another_sample_is_not_ready(samples, other_network):
    """It was trained where there is nothing but a smooth ball, and so gives a smooth image of anything."""
    readiness = judged(other_network, samples["A"])
    assert not readiness.ready
    assert "blurred" in readiness.reason or "a feature lost" in readiness.reason
