"""What a machine without a GPU can check of the recorded step; tests/hardware has the rest."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator

import pytest
import torch

from bluesky_jit.learn import trainer as trainer_module
from bluesky_jit.learn.cuda_step import CudaStep
from bluesky_jit.learn.device import training_device
from bluesky_jit.learn.trainer import Trainer, first_losses
from bluesky_jit.messages import Pairs


@pytest.fixture(autouse=True)
def ask_anew() -> Iterator[None]:
    """The device is found out once a process: here, in each test."""
    training_device.cache_clear()
    yield
    training_device.cache_clear()


class Again:
    """Replay by computing anew, on whatever tensors the step had when this was made."""

    def __init__(self, step: RecordedOnCpu) -> None:
        self._step = step
        self._u, self._v = step._u, step._v

    def replay(self) -> None:
        assert self._step._u is self._u
        assert self._step._v is self._v
        self._step._compute()


class RecordedOnCpu(CudaStep):
    """Do all that the GPU's step does but for the graph itself."""

    recordings = 0

    def _recorded(self) -> Again:
        self.recordings += 1
        self._warm_up()
        return Again(self)


@pytest.fixture
def recorded(monkeypatch) -> Trainer:
    """A trainer on the CPU whose step is made as for a GPU."""
    monkeypatch.setattr(trainer_module, "Step", RecordedOnCpu)
    return Trainer("unet-fast", device="cpu")


def same(first: Trainer, second: Trainer) -> bool:
    one, other = first.snapshot().tensors, second.snapshot().tensors
    return all(torch.equal(one[name], other[name]) for name in one)


def test_the_recorded_step_gives_the_same_weights_as_the_plain_one_bit_for_bit(scene, recorded):
    plain = Trainer("unet-fast", device="cpu")
    for step in range(20):
        pairs = scene.pairs(16, seed=step)
        assert recorded.train_step(pairs) == plain.train_step(pairs)
    assert same(recorded, plain)
    assert recorded._step.recordings == 1


def test_pairs_of_another_shape_are_recorded_anew_and_warming_up_leaves_no_trace(scene, recorded):
    plain = Trainer("unet-fast", device="cpu")
    for count in (16, 16, 8, 8, 16):
        pairs = scene.pairs(count, seed=count)
        recorded.train_step(pairs)
        plain.train_step(pairs)
    assert same(recorded, plain)
    assert recorded._step.recordings == 3


def test_a_spoilt_batch_is_refused_where_nobody_looks_at_numbers(scene, recorded):
    plain = Trainer("unet-fast", device="cpu")
    pairs = scene.pairs(16, seed=0)
    u = pairs.u.copy()
    u[0, 0, 0, 0, 0] = 1e9
    for each in (plain, recorded):
        for _ in range(3):
            each.train_step(pairs)
        with pytest.raises(ValueError, match="the loss is"):
            each.train_step(Pairs(u=u, v=pairs.v))
        each.train_step(pairs)
    assert same(recorded, plain)
    assert (recorded.step, recorded.refused) == (4, 1)


def test_after_a_checkpoint_was_loaded_the_step_is_recorded_anew(scene, recorded):
    plain = Trainer("unet-fast", device="cpu")
    for each in (plain, recorded):
        for _ in range(3):
            each.train_step(scene.pairs(16, seed=0))
    recorded.load_state_dict(recorded.state_dict())
    for each in (plain, recorded):
        each.train_step(scene.pairs(16, seed=1))
    assert same(recorded, plain)


def test_the_cpu_is_used_where_there_is_no_gpu(scene, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    trainer = Trainer("fast")
    trainer.train_step(scene.pairs(4, seed=0))
    assert {tensor.device.type for tensor in trainer.state_dict()["network"].values()} == {"cpu"}
    assert not isinstance(trainer._step, CudaStep)


@pytest.fixture
def gpu(monkeypatch) -> None:
    """PyTorch says that it has a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def test_a_gpu_that_does_not_run_the_step_is_not_used_and_the_log_says_why(gpu, caplog):
    def losses(name: str, steps: int) -> list[float]:
        raise RuntimeError("CUDA error: an illegal memory access\nand a long story")

    with caplog.at_level(logging.WARNING, logger="bluesky_jit.learn.device"):
        assert training_device(losses) == "cpu"
    assert caplog.messages == [
        "training stays on the CPU, for the GPU does not run it: CUDA error: an illegal memory access"
    ]


@pytest.mark.parametrize(("gain", "device"), [(1.001, "cuda"), (1.1, "cpu"), (math.nan, "cpu")])
def test_a_gpu_is_used_when_it_trains_as_the_cpu_does(gpu, gain, device):
    def losses(name: str, steps: int) -> list[float]:
        return [(gain if name == "cuda" else 1.0) * 1.5**-step for step in range(steps)]

    assert training_device(losses) == device


def test_what_devices_are_compared_by_is_the_same_each_time():
    assert first_losses("cpu", 3) == first_losses("cpu", 3)
