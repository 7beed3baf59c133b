"""Checkpoints: training goes on as if it had never stopped, and half a file is never taken for one."""

from __future__ import annotations

import logging
import pickle
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch

from bluesky_jit.learn import checkpoint
from bluesky_jit.learn.checkpoint import Checkpoints
from bluesky_jit.learn.trainer import Trainer
from tests.helpers.small_disk import largest_file

STATE = {"version": checkpoint.VERSION, "preset": "fast", "step": 0}


def go_on(trainer: Trainer, scene, steps: range) -> None:
    for step in steps:
        trainer.train_step(scene.pairs(32, seed=step))


def same(first: dict, second: dict) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("preset", ["unet-fast", "fast"])
def test_training_interrupted_at_half_time_gives_the_same_weights_bit_for_bit(scene, preset, tmp_path):
    trainer = Trainer(preset)
    go_on(trainer, scene, range(100))
    checkpoint.write(trainer.state_dict(), tmp_path / "half.pt")
    go_on(trainer, scene, range(100, 200))

    # Another seed: all must come from the file.
    resumed = Trainer(preset, seed=99)
    resumed.load_state_dict(checkpoint.read(tmp_path / "half.pt"))
    go_on(resumed, scene, range(100, 200))

    assert resumed.step == 200
    assert same(resumed.state_dict()["network"], trainer.state_dict()["network"])
    assert same(resumed.snapshot().tensors, trainer.snapshot().tensors)
    assert (resumed.snapshot().mean, resumed.snapshot().scale) == (trainer.snapshot().mean, trainer.snapshot().scale)


def test_a_state_is_read_back_and_leaves_no_file_beside_it(tmp_path):
    path = tmp_path / "new" / "folder" / "a.pt"
    checkpoint.write({**STATE, "tensor": torch.arange(3)}, path)
    assert torch.equal(checkpoint.read(path)["tensor"], torch.arange(3))
    assert list(path.parent.iterdir()) == [path]


def test_a_state_that_cannot_be_written_leaves_the_one_before(tmp_path):
    path = tmp_path / "a.pt"
    checkpoint.write({**STATE, "step": 1}, path)
    with pytest.raises(AttributeError):
        checkpoint.write({**STATE, "step": 2, "impossible": lambda: None}, path)
    assert checkpoint.read(path)["step"] == 1


def test_a_full_disk_is_an_os_error_and_leaves_nothing_beside_the_one_before(tmp_path):
    """PyTorch itself says of it with a RuntimeError."""
    path = tmp_path / "a.pt"
    checkpoint.write({**STATE, "step": 1}, path)
    with largest_file(20_000), pytest.raises(OSError):
        checkpoint.write({**STATE, "step": 2, "tensor": torch.zeros(100_000)}, path)
    assert checkpoint.read(path)["step"] == 1
    assert list(tmp_path.iterdir()) == [path]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("energy_kev = 25")


def pickled_code(path: Path) -> None:
    path.write_bytes(pickle.dumps(subprocess.run))


def archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("notes.txt", "energy_kev = 25")


@pytest.mark.parametrize("spoil", [archive, cut, empty, text, pickled_code])
def test_a_truncated_or_foreign_file_gives_one_clear_message(spoil, tmp_path):
    path = tmp_path / "a.pt"
    checkpoint.write({**STATE, "tensor": torch.zeros(1000)}, path)
    spoil(path)
    with pytest.raises(ValueError, match=r"a\.pt is not a whole checkpoint: remove it and resume from an older one"):
        checkpoint.read(path)


def test_tensors_of_something_else_are_no_checkpoint(tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt is no checkpoint of training"):
        checkpoint.read(tmp_path / "a.pt")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .*a\.pt"):
        checkpoint.read(tmp_path / "a.pt")


def test_a_checkpoint_of_another_preset_or_version_is_refused():
    state = Trainer("fast").state_dict()
    with pytest.raises(ValueError, match="checkpoint is of preset fast and this model of unet-fast"):
        Trainer("unet-fast").load_state_dict(state)
    with pytest.raises(ValueError, match="version 1"):
        Trainer("fast").load_state_dict({**state, "version": 1})


class TestIntervals:
    def test_one_is_due_after_the_seconds_or_the_steps_whichever_come_first(self, tmp_path):
        now = [0.0]
        checkpoints = Checkpoints(tmp_path, every_s=10.0, every_steps=100, clock=lambda: now[0])
        assert not checkpoints.due(99)
        assert checkpoints.due(100)
        now[0] = 10.0
        assert checkpoints.due(1)
        checkpoints.save({**STATE, "step": 100})
        assert not checkpoints.due(199)
        assert checkpoints.due(200)

    def test_training_that_started_afresh_counts_from_nought(self, tmp_path):
        checkpoints = Checkpoints(tmp_path, every_steps=100)
        checkpoints.save({**STATE, "step": 5000})
        assert not checkpoints.due(3)
        assert checkpoints.due(103)

    def test_the_newest_are_kept_and_others_in_the_folder_are_left_alone(self, tmp_path):
        (tmp_path / "mine.pt").write_text("x")
        checkpoints = Checkpoints(tmp_path, every_steps=1, kept=2)
        for step in range(5):
            checkpoints.save({**STATE, "step": step})
        assert sorted(path.name for path in tmp_path.iterdir()) == ["000004.pt", "000005.pt", "mine.pt"]
        assert Checkpoints(tmp_path).newest()["step"] == 4

    def test_a_later_session_goes_on_counting(self, tmp_path):
        Checkpoints(tmp_path).save({**STATE, "step": 900})
        Checkpoints(tmp_path).save({**STATE, "step": 20})
        assert Checkpoints(tmp_path).newest()["step"] == 20

    def test_when_the_newest_is_spoilt_the_one_before_is_taken_and_the_log_says_so(self, tmp_path, caplog):
        checkpoints = Checkpoints(tmp_path)
        for step in (1, 2):
            checkpoints.save({**STATE, "step": step})
        cut(tmp_path / "000002.pt")
        with caplog.at_level(logging.WARNING, logger="bluesky_jit.learn.checkpoint"):
            assert checkpoints.newest()["step"] == 1
        assert "000002.pt is not a whole checkpoint" in caplog.text

    def test_an_empty_or_missing_folder_has_none(self, tmp_path):
        assert Checkpoints(tmp_path).newest() is None
        assert Checkpoints(tmp_path / "not there").newest() is None

    def test_after_a_full_disk_it_is_not_tried_again_at_every_step(self, tmp_path):
        (tmp_path / "a file").write_text("")
        checkpoints = Checkpoints(tmp_path / "a file", every_steps=10)
        with pytest.raises(OSError):
            checkpoints.save({**STATE, "step": 10})
        assert not checkpoints.due(11)

    @pytest.mark.parametrize("interval", [{"every_s": 0.0}, {"every_steps": -1}, {"kept": 0}])
    def test_intervals_must_be_above_nought(self, interval, tmp_path):
        with pytest.raises(ValueError, match="give a number above 0"):
            Checkpoints(tmp_path, **interval)
