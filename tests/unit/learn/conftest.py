"""What tests of learning share: a scene with a known truth, the tablets of both experiments, and networks for them."""

from __future__ import annotations

import pytest
from noisy_scene import Scene, make_scene
from seen_tablet import Network, Sample, make_sample, other_sample, train


@pytest.fixture(scope="session")
def scene() -> Scene:
    return make_scene(3)


@pytest.fixture(scope="session")
def samples() -> dict[str, Sample]:
    """Return the tablet of each experiment, as the demo's scanner sees it."""
    return {"A": make_sample("A"), "B": make_sample("B")}


@pytest.fixture(scope="session")
def networks(samples) -> dict[str, Network]:
    """Return a network trained on each experiment."""
    return {name: train(sample) for name, sample in samples.items()}


@pytest.fixture(scope="session")
def other_network(samples) -> Network:
    """Return a network trained on a sample that has no detail."""
    return train(other_sample(samples["A"]))
