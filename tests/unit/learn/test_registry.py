"""Models are kept with the set-up that made them, and the nearest one is found; damaged files harm nobody."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bluesky_jit.learn.fingerprint import Fingerprint
from bluesky_jit.learn.registry import KEPT, Registry
from bluesky_jit.learn.weights import Weights
from bluesky_jit.tomo.geometry import ConeGeometry, ParallelGeometry

CONE = ConeGeometry(n_u=64, n_v=48, pixel_mm=0.2, source_axis_mm=441.4, source_detector_mm=1069)
HERE = Fingerprint.of(
    CONE, preset="unet-fast", voxel_mm=0.08, noise=0.02, exposure_s=0.012, energy_kev=60.0, run_uid="3f2a"
)
LOGGER = "bluesky_jit.learn.registry"


def weights(preset: str = "unet-fast", *, step: int = 700, value: float = 0.5) -> Weights:
    return Weights(preset=preset, step=step, mean=0.03, scale=0.02, tensors={"body.encode": torch.full((4, 4), value)})


@pytest.fixture
def clock() -> Callable[[], float]:
    """A second later each time that it is asked."""
    seconds = iter(range(1_800_000_000, 1_900_000_000))
    return lambda: float(next(seconds))


@pytest.fixture
def registry(tmp_path: Path, clock: Callable[[], float]) -> Registry:
    return Registry(tmp_path / "models", clock=clock)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == LOGGER]


# ── fingerprints ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_fingerprint_knows_the_set_up() -> None:
    assert HERE.kind == "cone"
    assert HERE.pixel_mm == 0.2
    assert HERE.geometry["source_axis_mm"] == 441.4
    assert HERE.geometry["n_u"] == 64


def test_a_fingerprint_survives_json() -> None:
    assert Fingerprint.from_metadata(json.loads(json.dumps(HERE.to_metadata()))) == HERE


@pytest.mark.parametrize("name", ["voxel_mm", "noise", "exposure_s", "energy_kev"])
def test_a_factor_of_two_in_anything_is_a_distance_of_one(name: str) -> None:
    for factor in (2.0, 0.5):
        there = replace(HERE, **{name: getattr(HERE, name) * factor})
        assert HERE.distance(there) == pytest.approx(1.0)
        assert there.distance(HERE) == pytest.approx(1.0)


def test_several_differences_add_as_lengths_do() -> None:
    assert HERE.distance(replace(HERE, noise=0.08, voxel_mm=0.04)) == pytest.approx(math.sqrt(5))


def test_what_is_not_known_is_not_compared() -> None:
    assert HERE.distance(replace(HERE, energy_kev=None, exposure_s=None)) == 0


def test_another_preset_or_beam_is_never_near() -> None:
    assert HERE.distance(replace(HERE, preset="fast")) == math.inf
    parallel = Fingerprint.of(
        ParallelGeometry(n_u=64, n_v=48, pixel_mm=0.2), preset="unet-fast", voxel_mm=0.08, noise=0.02
    )
    assert HERE.distance(parallel) == math.inf


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, "0.02", True, None])
def test_a_noise_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"noise of a fingerprint is .*: give a positive number"):
        replace(HERE, noise=value)


# ── saving and finding ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_saved_model_is_found_and_is_the_same(registry: Registry) -> None:
    registry.save(weights(), HERE, {"held_out": 0.53, "unseen": math.nan})

    entry = registry.nearest(replace(HERE, run_uid="another"))

    assert entry is not None
    assert entry.fingerprint == HERE
    assert entry.figures == {"held_out": 0.53}
    assert entry.versions["torch"] == torch.__version__
    assert entry.time_s == 1_800_000_000
    found = entry.load()
    assert (found.preset, found.step, found.mean, found.scale) == ("unet-fast", 700, 0.03, 0.02)
    assert torch.equal(found.tensors["body.encode"], weights().tensors["body.encode"])


def test_the_files_hold_plain_values_only(registry: Registry) -> None:
    entry = registry.save(weights(), HERE, {})

    assert torch.load(entry.weights_file, weights_only=True)["step"] == 700
    assert json.loads(entry.path.read_text())["fingerprint"]["run_uid"] == "3f2a"


def test_an_empty_or_missing_folder_has_no_models(tmp_path: Path) -> None:
    assert Registry(tmp_path / "nowhere").entries() == ()
    assert Registry(tmp_path / "nowhere").nearest(HERE) is None


def test_the_nearest_of_several_is_found(registry: Registry) -> None:
    for noise in (0.04, 0.022, 0.01):
        registry.save(weights(), replace(HERE, noise=noise), {})

    entry = registry.nearest(HERE)

    assert entry is not None
    assert entry.fingerprint.noise == 0.022


def test_of_equally_near_models_the_newest_is_found(registry: Registry) -> None:
    for uid in ("older", "newer"):
        registry.save(weights(), replace(HERE, run_uid=uid), {})

    entry = registry.nearest(HERE)

    assert entry is not None
    assert entry.fingerprint.run_uid == "newer"


def test_beyond_the_limit_nothing_is_near(registry: Registry) -> None:
    registry.save(weights(), replace(HERE, noise=HERE.noise * 4.1), {})
    assert registry.nearest(HERE) is None

    registry.save(weights(), replace(HERE, noise=HERE.noise * 3.9), {})
    assert registry.nearest(HERE) is not None


def test_a_model_of_another_preset_is_not_near(registry: Registry) -> None:
    registry.save(weights("fast"), replace(HERE, preset="fast"), {})
    assert registry.nearest(HERE) is None


def test_weights_under_another_presets_fingerprint_are_refused(registry: Registry) -> None:
    with pytest.raises(ValueError, match="weights are of preset fast and the fingerprint of unet-fast"):
        registry.save(weights("fast"), HERE, {})


def test_only_the_newest_models_are_kept(tmp_path: Path, clock: Callable[[], float]) -> None:
    registry = Registry(tmp_path, kept=3, clock=clock)
    for step in range(5):
        registry.save(weights(step=step), HERE, {})

    assert [entry.step for entry in registry.entries()] == [4, 3, 2]
    assert len(list(tmp_path.iterdir())) == 6


def test_dozens_of_models_are_kept_by_default() -> None:
    assert KEPT == 64


def test_dropping_models_leaves_files_that_are_not_ours(tmp_path: Path, clock: Callable[[], float]) -> None:
    (tmp_path / "notes.json").write_text('{"mine": true}')
    registry = Registry(tmp_path, kept=1, clock=clock)
    for _ in range(3):
        registry.save(weights(), HERE, {})

    assert (tmp_path / "notes.json").exists()


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file")
    with pytest.raises(OSError, match="models"):
        Registry(tmp_path / "models").save(weights(), HERE, {})


def test_a_write_that_fails_leaves_nothing_behind(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bluesky_jit.learn.registry.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        registry.save(weights(), HERE, {})

    assert list(registry.folder.iterdir()) == []


# ── files that are not what they should be ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'{"format": "bluesky_jit mod', "it is no JSON"),
        (b"\xff\xfe\x00", "it is no JSON"),
        (b"", "it is no JSON"),
        (b"[1, 2]", "it does not describe a bluesky_jit model"),
        (b'{"format": "other"}', "it does not describe a bluesky_jit model"),
        (b'{"format": "bluesky_jit model", "version": 99}', "it has version 99, and this program reads 1"),
        (b'{"format": "bluesky_jit model", "version": 1}', "an entry is missing"),
    ],
)
def test_a_foreign_or_damaged_description_is_left_out_and_named(
    registry: Registry, caplog: pytest.LogCaptureFixture, content: bytes, why: str
) -> None:
    registry.save(weights(), HERE, {})
    (registry.folder / "odd.json").write_bytes(content)

    with caplog.at_level(logging.WARNING, logger=LOGGER):
        entry = registry.nearest(HERE)

    assert entry is not None
    [message] = messages(caplog)
    assert "odd.json is left out of the models" in message
    assert why in message


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("fingerprint", {}),
        ("fingerprint", 3),
        ("figures", []),
        ("figures", {"held_out": "good"}),
        ("time_s", "noon"),
        ("time_s", math.nan),
        ("weights", {"file": "../elsewhere.pt", "sha256": "", "step": 1}),
        ("weights", {"file": "model.py", "sha256": "", "step": 1}),
        ("weights", {"file": "model.pt", "sha256": "", "step": math.inf}),
    ],
)
def test_a_description_with_a_wrong_value_is_left_out(
    registry: Registry, caplog: pytest.LogCaptureFixture, part: str, value: object
) -> None:
    path = registry.save(weights(), HERE, {}).path
    path.write_text(json.dumps({**json.loads(path.read_text()), part: value}))

    with caplog.at_level(logging.WARNING, logger=LOGGER):
        assert registry.nearest(HERE) is None

    [message] = messages(caplog)
    assert path.name in message


@pytest.mark.parametrize("damage", [lambda content: content[:-50], lambda content: b"\0" * len(content)])
def test_damaged_weights_are_refused_by_name(registry: Registry, damage: Callable[[bytes], bytes]) -> None:
    entry = registry.save(weights(), HERE, {})
    entry.weights_file.write_bytes(damage(entry.weights_file.read_bytes()))

    with pytest.raises(ValueError, match=rf"{entry.weights_file.name} is damaged"):
        entry.load()


def test_missing_weights_are_refused_by_name(registry: Registry) -> None:
    entry = registry.save(weights(), HERE, {})
    entry.weights_file.unlink()

    with pytest.raises(ValueError, match=rf"{entry.weights_file.name} cannot be read"):
        entry.load()


def test_weights_in_a_form_that_this_program_does_not_know_are_refused(registry: Registry) -> None:
    entry = registry.save(weights(), HERE, {})
    for state in ({"layers": 3}, [1, 2]):
        torch.save(state, entry.weights_file)
        digest = hashlib.sha256(entry.weights_file.read_bytes()).hexdigest()
        with pytest.raises(ValueError, match="holds no weights that this program knows"):
            replace(entry, digest=digest).load()


def test_code_in_a_weights_file_is_never_run(registry: Registry, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    entry = registry.save(weights(), HERE, {})
    for content in (pickle.dumps(Trap(), protocol=2), b"\x80\x02nonsense"):
        entry.weights_file.write_bytes(content)
        with pytest.raises(ValueError, match="holds no weights that this program knows"):
            replace(entry, digest=hashlib.sha256(content).hexdigest()).load()
    assert not (tmp_path / "sprung").exists()
