"""The presets: which there are, and what they are made of."""

from __future__ import annotations

import pickle

import pytest

from bluesky_jit.learn.presets import PRESETS, preset_named

PARAMETERS = {
    "unet-fast": 10_368,
    "unet-fast-z3": 11_520,
    "unet-fast-t3": 11_520,
    "fast": 8_064,
    "fast-z3": 9_216,
    "fast-t3": 9_216,
    "unet-half": 67_968,
    "standard-tuned": 72_144,
    "standard": 72_144,
    "c16": 288_288,
    "c32": 1_152_576,
    **dict.fromkeys(("v30", "v40", "v60", "v100", "v150"), 72_144),
    **dict.fromkeys(("z3", "z5", "z7", "t3", "t5", "t7"), 216_432),
}
TABLE_1 = {
    # name: feature maps, points along a side, slices, frames
    "standard": (8, 20, 1, 1),
    "c16": (16, 20, 1, 1),
    "c32": (32, 20, 1, 1),
    "v30": (8, 30, 1, 1),
    "v40": (8, 40, 1, 1),
    "v60": (8, 60, 1, 1),
    "v100": (8, 100, 1, 1),
    "v150": (8, 150, 1, 1),
    "z3": (8, 20, 3, 1),
    "z5": (8, 20, 5, 1),
    "z7": (8, 20, 7, 1),
    "t3": (8, 20, 1, 3),
    "t5": (8, 20, 1, 5),
    "t7": (8, 20, 1, 7),
}


def test_every_preset_has_the_parameters_that_its_architecture_says():
    made = {
        name: sum(weight.numel() for weight in preset.build().parameters())
        for name, preset in PRESETS.items()
        if preset.network is not None
    }
    assert made == PARAMETERS


@pytest.mark.parametrize("name", TABLE_1)
def test_the_presets_of_table_1_are_the_papers(name):
    preset, (features, patch, depth, frames) = PRESETS[name], TABLE_1[name]
    assert next(iter(preset.build().parameters())).shape[0] == features
    assert (preset.patch, preset.depth, preset.frames) == (patch, depth, frames)
    assert preset.recipe.learning_rate == 1e-4
    assert (preset.recipe.betas, preset.recipe.warm_up_steps, preset.recipe.average_decay) == ((0.9, 0.999), 0, 0.0)
    assert preset.normalisation == "none"


def test_total_variation_is_a_preset_without_a_network():
    with pytest.raises(ValueError, match="preset tv has no network"):
        PRESETS["tv"].build()


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_found_by_name_and_pickle(name):
    preset = preset_named(name)
    assert preset.name == name
    assert pickle.loads(pickle.dumps(preset)) == preset  # noqa: S301 (our own bytes)


def test_an_unknown_preset_is_refused_with_the_known_names():
    with pytest.raises(ValueError, match=r"learn\.preset is 'standrad': give one of unet-fast, .* tv"):
        preset_named("standrad")
