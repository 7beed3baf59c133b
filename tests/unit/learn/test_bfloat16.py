"""Gradients in bfloat16."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bluesky_jit.learn.presets import PRESETS
from bluesky_jit.learn.trainer import Trainer


@pytest.mark.parametrize("name", ["unet-fast", "fast"])
def test_networks_learn_as_well_from_gradients_in_bfloat16(scene, name, monkeypatch):
    # Where the processor lacks it, PyTorch emulates it.
    monkeypatch.setattr("bluesky_jit.learn.step.has_bfloat16", lambda: True)
    preset = PRESETS[name]
    exact = replace(preset, recipe=replace(preset.recipe, bfloat16=False))
    trainers = [Trainer(each, seed=0, device="cpu") for each in (preset, exact)]
    for step in range(60):
        pairs = scene.pairs(32, seed=step)
        for trainer in trainers:
            trainer.train_step(pairs)
    rounded, exactly = (trainer.accuracy(scene.held_out).value for trainer in trainers)
    assert rounded != exactly
    assert rounded == pytest.approx(exactly, abs=0.005)
    assert {tensor.dtype for tensor in trainers[0].snapshot().tensors.values()} == {torch.float32}


def test_the_papers_presets_are_trained_in_float32(scene, monkeypatch):
    snapshots = []
    for has in (False, True):
        monkeypatch.setattr("bluesky_jit.learn.step.has_bfloat16", lambda has=has: has)
        trainer = Trainer("standard", seed=0, device="cpu")
        trainer.train_step(scene.pairs(32, seed=0))
        snapshots.append(trainer.snapshot().tensors)
    assert all(torch.equal(tensor, snapshots[1][name]) for name, tensor in snapshots[0].items())
