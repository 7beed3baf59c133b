"""Two processes with one seed learn the same, bit for bit."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.system

THOUSAND_STEPS = """
import hashlib
import numpy as np
from bluesky_jit.learn.buffer import PairBuffer
from bluesky_jit.learn.trainer import Trainer
from bluesky_jit.messages import Pairs

rng = np.random.default_rng(5)
truth = rng.normal(size=(320, 1, 1, 12, 12)).cumsum(axis=-1)
u, v = (truth + rng.normal(size=(2, *truth.shape))).astype(np.float32)
buffer, trainer = PairBuffer(320, seed=0), Trainer("unet-fast", seed=0, device="cpu")
buffer.push(Pairs(u=u, v=v))
for _ in range(1000):
    trainer.train_step(buffer.sample(4))
weights = b"".join(tensor.numpy().tobytes() for tensor in trainer.snapshot().tensors.values())
print(trainer.step, np.isfinite(np.frombuffer(weights, dtype=np.float32)).all(), hashlib.sha256(weights).hexdigest())
"""


def test_a_thousand_steps_in_two_processes_with_one_seed_give_the_same_weights():
    processes = [
        subprocess.Popen([sys.executable, "-c", THOUSAND_STEPS], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [process.communicate(timeout=100)[0] for process in processes]
    assert said[0] == said[1]
    assert said[0].startswith("1000 True ")
