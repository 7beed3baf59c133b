"""The small networks."""

from __future__ import annotations

import pytest
import torch
from noisy_scene import BACKGROUND

from bluesky_jit.learn.networks import HalfResolution
from bluesky_jit.learn.presets import PRESETS
from bluesky_jit.learn.quality.accuracy import BEATS_RAW, accuracy_of_patches
from bluesky_jit.learn.weights import initialise

SMALL = [name for name, preset in PRESETS.items() if preset.network and isinstance(preset.build(), HalfResolution)]


@pytest.fixture(params=SMALL)
def preset(request):
    return PRESETS[request.param]


@pytest.fixture
def network(preset):
    network = preset.build()
    initialise(network, 0)
    return network


@pytest.fixture
def channels(preset):
    return preset.frames * preset.depth


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", [(20, 20), (30, 30), (37, 53), (100, 100), (128, 128), (4, 5), (150, 21)])
def test_the_output_is_one_slice_of_the_shape_of_the_input(network, channels, shape):
    with torch.inference_mode():
        assert network(noise(2, channels, *shape)).shape == (2, 1, *shape)


def test_odd_sizes_are_extended_by_reflection_at_the_bottom_and_right(network, channels):
    x = noise(1, channels, 21, 22)
    below, right = -21 % network.whole, -22 % network.whole
    rows = [*range(21), *(19 - k for k in range(below))]
    columns = [*range(22), *(20 - k for k in range(right))]
    with torch.inference_mode():
        assert torch.equal(network(x), network(x[:, :, rows][..., columns])[..., :21, :22])


@pytest.mark.parametrize("factor", [0.5, 2.0, 8.0])
def test_without_bias_a_brighter_image_gives_a_brighter_result_and_nothing_else(network, channels, factor):
    x = noise(1, channels, 24, 24)
    with torch.inference_mode():
        torch.testing.assert_close(network(factor * x), factor * network(x))
        assert not network(torch.zeros(1, channels, 24, 24)).any()
    assert all("bias" not in name for name in network.state_dict())


def test_a_seed_makes_the_weights_and_leaves_other_random_numbers_alone(preset):
    networks = [preset.build() for _ in range(3)]
    state = torch.get_rng_state()
    for network, seed in zip(networks, (5, 5, 6), strict=True):
        initialise(network, seed)
    assert torch.equal(torch.get_rng_state(), state)
    first, second, other = ([p.detach() for p in network.parameters()] for network in networks)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("name", ["unet-fast", "fast", "unet-fast-z3", "fast-t3"])
def test_small_networks_begin_as_a_blur_of_the_middle_slice(name):
    preset = PRESETS[name]
    network = preset.build()
    initialise(network, 0)
    depth = preset.frames * preset.depth
    # Random features are there to be learnt with; without them the blur is alone.
    *_, last = network.parameters()
    last.data[:, 8:] = 0.0
    x = torch.zeros(1, depth, 40, 40)
    x[:, depth // 2] = 3.0
    x[:, depth // 2, 20, 20] -= 100.0
    with torch.inference_mode():
        made = network(x)[0, 0]
    torch.testing.assert_close(made[5:12, 5:12], torch.full((7, 7), 3.0))
    assert -100 / 6 < made[20, 20] - 3 < -100 / 20
    assert made[20, 20] == made.min()


def test_before_the_first_step_the_default_is_better_than_a_raw_slice(scene):
    network = PRESETS["unet-fast"].build()
    initialise(network, 0)
    held_out = scene.held_out
    with torch.inference_mode():
        made = network(torch.from_numpy(held_out.u[:, 0] - BACKGROUND)).numpy()[:, 0] + BACKGROUND
    assert accuracy_of_patches(made, held_out).value < BEATS_RAW - 0.1
