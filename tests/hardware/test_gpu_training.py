"""Training on a GPU; skipped where there is none."""

import time

import numpy as np
import pytest
import torch

from bluesky_jit.learn.cuda_step import CudaStep
from bluesky_jit.learn.presets import PRESETS
from bluesky_jit.learn.trainer import Trainer
from bluesky_jit.messages import Pairs

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch has no GPU")]


def pairs(preset: str, seed: int, count: int = 32) -> Pairs:
    wanted = PRESETS[preset]
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(count, wanted.frames, wanted.depth, 20, 20)).cumsum(axis=-1)
    u, v = (truth + rng.normal(size=(2, *truth.shape))).astype(np.float32)
    return Pairs(u=u, v=v)


@pytest.mark.parametrize("preset", ["unet-fast", "fast", "unet-fast-z3", "standard", "z3"])
def test_a_gpu_learns_what_the_cpu_learns(preset):
    gpu, cpu = Trainer(preset, device="cuda"), Trainer(preset, device="cpu")
    losses = [(gpu.train_step(pairs(preset, seed)), cpu.train_step(pairs(preset, seed))) for seed in range(50)]
    assert np.mean([first for first, _ in losses[-10:]]) == pytest.approx(
        np.mean([second for _, second in losses[-10:]]), rel=0.02
    )
    held_out = pairs(preset, 1000)
    assert gpu.accuracy(held_out).value == pytest.approx(cpu.accuracy(held_out).value, abs=0.02)


def test_the_step_is_one_graph_and_a_spoilt_batch_leaves_no_trace():
    trainer = Trainer("unet-fast")
    assert isinstance(trainer._step, CudaStep)
    for seed in range(5):
        trainer.train_step(pairs("unet-fast", seed))
    before = trainer.snapshot()
    spoilt = pairs("unet-fast", 5)
    spoilt.u[0, 0, 0, 0, 0] = 1e9
    with pytest.raises(ValueError, match="the loss is"):
        trainer.train_step(spoilt)
    after = trainer.snapshot()
    assert all(torch.equal(before.tensors[name], after.tensors[name]) for name in before.tensors)


def test_a_checkpoint_of_a_gpu_is_read_on_a_cpu_and_back(tmp_path):
    gpu, cpu = Trainer("unet-fast", device="cuda"), Trainer("unet-fast", device="cpu")
    for seed in range(5):
        gpu.train_step(pairs("unet-fast", seed))
    gpu.save(tmp_path / "gpu.pt")
    cpu.load(tmp_path / "gpu.pt")
    cpu.train_step(pairs("unet-fast", 6))
    cpu.save(tmp_path / "cpu.pt")
    gpu.load(tmp_path / "cpu.pt")
    gpu.train_step(pairs("unet-fast", 7))
    assert gpu.step == 7


def test_replaying_is_faster_than_the_estimate_of_two_thousand_steps_a_second():
    trainer, batch = Trainer("unet-fast"), pairs("unet-fast", 0)
    for _ in range(50):
        trainer.train_step(batch)
    began = time.perf_counter()
    for _ in range(1000):
        trainer.train_step(batch)
    assert 1000 / (time.perf_counter() - began) > 2000
