"""One tree of settings: defaults < TOML file < environment < keywords or command line.

An environment variable names its place in the tree: BLUESKY_JIT_LEARN__PRESET=fast.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from bluesky_jit.addresses import HIGHEST_PORT
from bluesky_jit.settings_sections import (
    REGION_NUMBERS,
    BeamlineSettings,
    EpicsSettings,
    GeometrySettings,
    IntakeSettings,
    LearnSettings,
    ServeSettings,
    SliceSettings,
    TiledSettings,
    TomoSettings,
)

ENVIRONMENT_PREFIX = "BLUESKY_JIT_"

POSITIVE = {
    "geometry": ("pixel_mm", "source_axis_mm", "source_detector_mm"),
    "intake": ("queue_frames", "watchdog_s"),
    "tomo": ("turns", "memory_gb", "angles_per_turn", "saturation_counts", "workers"),
    "slices": ("voxel_mm", "size", "updates_per_s", "preview_size"),
    "learn": ("batch", "patch", "frame_spacing", "checkpoint_every_s", "inference_memory_gb"),
}
"""Settings that must be above 0."""
NOT_NEGATIVE = {
    "tomo": ("zinger_threshold", "air_columns", "delta_beta", "ring_width"),
    "learn": ("buffer", "unseen_every"),
}
"""Settings that must not be below 0, which leaves what they set out."""
PARTS = {"tomo": ("filter_cutoff",)}
"""Settings that are a part of something: above 0 and at most 1."""
HIGHEST = {"learn": {"batch": 1024, "buffer": 65536}}
"""Largest values. A step on so many pairs takes ten times as long as one on 32; a buffer of so many takes 0.2 GB with
the default preset, and 2 GB with pairs of three slices in three frames."""
FEWEST_SPLITS = 2
"""One to learn from and one to learn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set."""

    geometry: GeometrySettings = field(default_factory=GeometrySettings)
    intake: IntakeSettings = field(default_factory=IntakeSettings)
    tomo: TomoSettings = field(default_factory=TomoSettings)
    slices: SliceSettings = field(default_factory=SliceSettings)
    learn: LearnSettings = field(default_factory=LearnSettings)
    epics: EpicsSettings = field(default_factory=EpicsSettings)
    tiled: TiledSettings = field(default_factory=TiledSettings)
    serve: ServeSettings = field(default_factory=ServeSettings)
    beamline: BeamlineSettings = field(default_factory=BeamlineSettings)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def changed(self, changes: Mapping[str, Mapping[str, Any]], *, origin: str = "keywords") -> Settings:
        """Return settings with some values replaced, `{"learn": {"seed": 3}}`; origin: named when they do not fit."""
        return _consistent(_merge(self, changes, origin))


def load_settings(
    file: str | os.PathLike[str] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    defaults: Mapping[str, Mapping[str, Any]] | None = None,
    **changes: Mapping[str, Any],
) -> Settings:
    """Return the defaults, overridden by a TOML file, the environment and keywords, in that order.

    The file is `file`, or the one that BLUESKY_JIT_SETTINGS names. defaults: take the place of the usual ones, as
    what a stored scan says of itself does.
    """
    environment = os.environ if environment is None else environment
    settings = _merge(Settings(), defaults or {}, "defaults")
    path = file or environment.get(ENVIRONMENT_PREFIX + "SETTINGS")
    if path:
        settings = _merge(settings, _read_toml(Path(path)), str(path))
    settings = _merge(settings, _from_environment(environment), "environment")
    return _consistent(_merge(settings, changes, "keywords"))


def settings_and_faults(
    file: str | os.PathLike[str] | None = None,
    *,
    environment: Mapping[str, str],
    changes: Mapping[str, Mapping[str, Any]],
) -> tuple[Settings, list[str]]:
    """Return settings as `load_settings` does, less those that do not fit, and what is wrong with each of these."""
    settings, faults = Settings(), []
    path = file or environment.get(ENVIRONMENT_PREFIX + "SETTINGS")
    origins: list[tuple[str, Mapping[str, Any]]] = [("environment", _from_environment(environment)), ("--set", changes)]
    if path:
        try:
            origins.insert(0, (str(path), _read_toml(Path(path))))
        except (OSError, ValueError) as error:
            faults.append(str(error))
    for origin, sections in origins:
        for section, values in sections.items():
            parts = [{key: value} for key, value in values.items()] if isinstance(values, Mapping) else [values]
            for part in parts:
                try:
                    settings = _merge(settings, {section: part}, origin)
                except ValueError as error:
                    faults.append(str(error))
    try:
        _consistent(settings)
    except ValueError as error:
        faults.append(str(error))
    return settings, faults


def _consistent(settings: Settings) -> Settings:
    """Return the settings; raise ValueError where one does not fit another."""
    learn = settings.learn
    names = REGION_NUMBERS.get(learn.region, ())
    if len(learn.region_mm) != len(names):
        wanted = f"{len(names)} numbers: {', '.join(names)}" if names else "none"
        raise ValueError(f"learn.region_mm is {learn.region_mm} and learn.region {learn.region}: give {wanted}")
    serve = settings.serve
    if bool(serve.kafka_servers) != bool(serve.kafka_topics):
        raise ValueError(
            f"serve.kafka_servers is {serve.kafka_servers!r} and serve.kafka_topics {list(serve.kafka_topics)}: give "
            "both, or none for no Kafka"
        )
    return settings


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise FileNotFoundError(
            f"settings file {path} does not exist: check the path or BLUESKY_JIT_SETTINGS"
        ) from None
    except IsADirectoryError:
        raise ValueError(f"settings file {path} is a folder: give the path of a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"settings file {path} is not valid TOML: {error}") from error


def _from_environment(environment: Mapping[str, str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for name, value in environment.items():
        if name.startswith(ENVIRONMENT_PREFIX) and "__" in name:
            section, _, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
            found.setdefault(section, {})[key] = value
    return found


def _merge(settings: Settings, changes: Mapping[str, Any], origin: str) -> Settings:
    for section, values in changes.items():
        known = [f.name for f in fields(Settings)]
        if section not in known:
            raise ValueError(f"{origin}: there is no section {section!r} in the settings; there are {', '.join(known)}")
        part = getattr(settings, section)
        if is_dataclass(values) and type(values) is type(part):
            settings = replace(settings, **{section: values})
            continue
        if not isinstance(values, Mapping):
            raise ValueError(f"{origin}: section {section} is {values!r}: give a table of settings")
        types = get_type_hints(type(part))
        for key, value in values.items():
            if key not in types:
                raise ValueError(f"{origin}: there is no setting {section}.{key}; there are {', '.join(types)}")
            place = f"{origin}: {section}.{key}"
            value = _converted(value, types[key], place)
            _require_fit(section, key, value, place)
            try:
                part = replace(part, **{key: value})
            except ValueError as error:
                raise ValueError(f"{origin}: {error}") from None
        settings = replace(settings, **{section: part})
    return settings


def _require_fit(section: str, key: str, value: Any, place: str) -> None:
    """Raise ValueError for a number that nothing could work with."""
    if not isinstance(value, int | float):
        return
    if not math.isfinite(value):
        raise ValueError(f"{place} is {value}: give a finite number")
    if key in POSITIVE.get(section, ()) and value <= 0:
        raise ValueError(f"{place} is {value}: give a number above 0")
    if key in NOT_NEGATIVE.get(section, ()) and value < 0:
        raise ValueError(f"{place} is {value}: give a number above 0, or 0 to leave it out")
    if key in PARTS.get(section, ()) and not 0 < value <= 1:
        raise ValueError(f"{place} is {value}: give a number above 0 and at most 1")
    highest = HIGHEST.get(section, {}).get(key, math.inf)
    if value > highest:
        raise ValueError(f"{place} is {value}: give at most {highest}, for time and memory")
    if (section, key) == ("learn", "splits") and value < FEWEST_SPLITS:
        raise ValueError(f"{place} is {value}: give at least {FEWEST_SPLITS}, for a network learns one from the other")
    # pvAccess takes the next port, too, for searches.
    highest_port = HIGHEST_PORT - ((section, key) == ("epics", "pva_port"))
    if key.endswith("_port") and not 1 <= value <= highest_port:
        raise ValueError(f"{place} is {value}: give a port from 1 to {highest_port}")


def _converted(value: Any, kind: Any, place: str) -> Any:
    """Turn a value (text, when it comes from the environment or the command line) into the setting's type."""
    if get_origin(kind) is UnionType:
        if value is None or (isinstance(value, str) and value.lower() in ("", "none")):
            return None
        kind = next(option for option in get_args(kind) if option is not type(None))
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(f"{place} is {value!r}: give one of {', '.join(map(str, get_args(kind)))}")
        return value
    if get_origin(kind) is tuple:
        items = [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else value
        try:
            return tuple(get_args(kind)[0](item) for item in items)
        except (TypeError, ValueError):
            raise ValueError(f"{place} is {value!r}: give numbers, like [1.0, 0.05] or 1.0,0.05") from None
    if kind is bool and isinstance(value, str):
        words = {
            "1": True,
            "true": True,
            "yes": True,
            "on": True,
            "0": False,
            "false": False,
            "no": False,
            "off": False,
        }
        if value.lower() not in words:
            raise ValueError(f"{place} is {value!r}: give true or false")
        return words[value.lower()]
    if kind is bool and not isinstance(value, bool):
        raise ValueError(f"{place} is {value!r}: give true or false")
    try:
        return kind(value)
    except (TypeError, ValueError):
        raise ValueError(f"{place} is {value!r}: give a value of type {kind.__name__}") from None
