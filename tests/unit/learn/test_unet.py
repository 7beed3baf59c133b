"""The paper's U-Net."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bluesky_jit.learn.networks import Network
from bluesky_jit.learn.presets import PRESETS
from bluesky_jit.learn.unet import Level, UNet
from bluesky_jit.learn.weights import initialise

PATCHES = (20, 30, 40, 60, 100, 150)
ODD = (37, 53)
BUILT = {name: preset.build() for name, preset in PRESETS.items() if preset.network is not None}


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def convolutions(network: nn.Module) -> list[nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d]:
    return [
        m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d))
    ]


@pytest.mark.parametrize("name", ["standard", "z3"])
def test_there_are_three_levels_of_three_encoding_and_three_decoding_convolutions(name):
    made = convolutions(PRESETS[name].build())
    strided = [m for m in made if m.stride[0] == 2 and not m.transposed]
    transposed = [m for m in made if m.stride[0] == 2 and m.transposed]
    assert (len(made), len(strided), len(transposed)) == (3 * 6, 3, 3)
    assert not [m for m in PRESETS[name].build().modules() if isinstance(m, nn.modules.batchnorm._NormBase)]


def levels(network: nn.Module) -> list[Level]:
    return [m for m in network.modules() if isinstance(m, Level)]


def test_features_double_from_level_to_level_and_skips_are_concatenated():
    made = levels(UNet())
    assert [level.first.out_channels for level in made] == [8, 16, 32]
    assert [level.join.in_channels for level in made] == [16, 32, 64]


@pytest.mark.parametrize("size", [(n, n) for n in PATCHES] + [ODD, (1, 1), (4, 5)])
def test_patches_of_the_paper_and_any_other_size_come_back_in_that_size(size):
    with torch.inference_mode():
        assert BUILT["standard"](noise(2, 1, *size)).shape == (2, 1, *size)


@pytest.mark.parametrize("name", ["z3", "z5", "z7", "t3", "t5", "t7"])
@pytest.mark.parametrize("size", [(20, 20), (30, 30), ODD])
def test_slabs_and_sequences_give_their_middle_slice(name, size):
    preset = PRESETS[name]
    with torch.inference_mode():
        assert BUILT[name](noise(2, preset.frames * preset.depth, *size)).shape == (2, 1, *size)


@pytest.mark.parametrize("points", [3, 5, 7, 20, 30, 37, 100, 150])
def test_padding_a_strided_convolution_makes_half_the_points_rounded_up_and_the_transposed_one_as_many_again(points):
    level = levels(UNet(features=2, levels=1))[0]
    x = noise(1, 2, points, 8)
    with torch.inference_mode():
        halved = level.halve(x)
        assert halved.shape[2] == -(-points // 2)
        assert level.up(halved, output_size=x.shape[2:]).shape[2:] == x.shape[2:]


@pytest.mark.parametrize("name", ["standard", "z5"])
def test_without_bias_a_scale_of_the_input_is_one_of_the_output(name):
    network = PRESETS[name].build()
    initialise(network, 0)
    x = noise(1, PRESETS[name].depth, 24, 24)
    with torch.inference_mode():
        torch.testing.assert_close(network(4 * x), 4 * network(x))


@pytest.mark.parametrize("name", ["unet-fast", "fast", "unet-half", "standard", "z3"])
def test_no_point_is_felt_farther_than_a_network_reaches(name):
    network = PRESETS[name].build()
    initialise(network, 0)
    channels, size = PRESETS[name].depth, 2 * network.reach + 40
    x = noise(1, channels, size, size)
    poked = x.clone()
    middle = size // 2
    poked[:, :, middle, middle] += 1000.0
    with torch.inference_mode():
        rows, columns = torch.nonzero((network(poked) - network(x))[0, 0], as_tuple=True)
    farthest = max(int((rows - middle).abs().max()), int((columns - middle).abs().max()))
    assert network.reach / 2 < farthest <= network.reach


@pytest.mark.parametrize("name", ["unet-fast", "fast", "unet-half", "standard", "z3"])
def test_moved_by_its_stride_an_image_gives_the_same(name):
    network = PRESETS[name].build()
    initialise(network, 0)
    side = 2 * network.reach + 3 * network.stride
    x = noise(1, PRESETS[name].depth, side + network.stride, side)
    with torch.inference_mode():
        moved, still = network(x)[:, :, network.stride :], network(x[:, :, network.stride :])
    inner = slice(network.reach, side - network.reach)
    torch.testing.assert_close(moved[..., inner, inner], still[..., inner, inner])


def test_volumes_have_their_channels_last_in_memory():
    weights = [weight for weight in BUILT["z3"].parameters() if min(weight.shape[:2]) > 1]
    assert all(weight.is_contiguous(memory_format=torch.channels_last_3d) for weight in weights)


@pytest.mark.parametrize("name", ["unet-fast", "fast", "standard", "z3", "unet-half"])
def test_while_nothing_is_learnt_the_same_is_computed_in_fewer_passes(name):
    network: Network = PRESETS[name].build()
    initialise(network, 0)
    x = noise(1, PRESETS[name].depth, 40, 40)
    with torch.inference_mode():
        quick = network(x)
    torch.testing.assert_close(quick, network(x).detach(), rtol=1e-5, atol=1e-6)
