"""The networks and presets."""

from __future__ import annotations

import pickle

import pytest
import torch

from bluesky_jit.learn.networks import PRESETS, initialise, preset_named


@pytest.fixture(params=sorted(PRESETS))
def preset(request):
    return PRESETS[request.param]


@pytest.fixture
def network(preset):
    network = preset.build()
    initialise(network, 0)
    return network


@pytest.mark.parametrize("shape", [(20, 20), (30, 30), (37, 53), (100, 100), (128, 128), (4, 5), (150, 21)])
def test_the_output_has_the_shape_of_the_input(network, shape):
    with torch.inference_mode():
        assert network(torch.randn(2, 1, *shape)).shape == (2, 1, *shape)


def test_odd_sizes_are_extended_by_reflection_at_the_bottom_and_right(network):
    x = torch.randn(1, 1, 21, 22, generator=torch.Generator().manual_seed(1))
    below, right = -21 % network.multiple, -22 % network.multiple
    rows = [*range(21), *(19 - k for k in range(below))]
    columns = [*range(22), *(20 - k for k in range(right))]
    with torch.inference_mode():
        assert torch.equal(network(x), network(x[:, :, rows][..., columns])[..., :21, :22])


@pytest.mark.parametrize("factor", [0.5, 2.0, 8.0])
def test_without_bias_a_brighter_image_gives_a_brighter_result_and_nothing_else(network, factor):
    x = torch.randn(1, 1, 24, 24, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(network(factor * x), factor * network(x))
        assert not network(torch.zeros(1, 1, 24, 24)).any()
    assert all("bias" not in name for name in network.state_dict())


def test_the_nets_are_small():
    sizes = {name: sum(p.numel() for p in preset.build().parameters()) for name, preset in PRESETS.items()}
    assert sizes == {"unet-fast": 10112, "fast": 8064}


def test_a_seed_makes_the_weights_and_leaves_other_random_numbers_alone(preset):
    networks = [preset.build() for _ in range(3)]
    state = torch.get_rng_state()
    for network, seed in zip(networks, (5, 5, 6), strict=True):
        initialise(network, seed)
    assert torch.equal(torch.get_rng_state(), state)
    first, second, other = ([p.detach() for p in network.parameters()] for network in networks)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_presets_are_found_by_name_and_pickle(preset):
    assert preset_named(preset.name) is preset
    assert pickle.loads(pickle.dumps(preset)) == preset  # noqa: S301 (our own bytes)


def test_an_unknown_preset_is_refused_with_the_known_names():
    with pytest.raises(ValueError, match=r"learn\.preset is 'standrad': give one of unet-fast, fast"):
        preset_named("standrad")
