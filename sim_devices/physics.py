"""From line integrals to the counts that a real detector gives: every effect is one setting, and all are seeded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from scipy.ndimage import gaussian_filter

FULL_SCALE = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorPhysics:
    """Set what the beam and the detector do to a frame; zero switches an effect off.

    A pixel that N photons reach in an exposure, with g counts per photon, reads g·N + offset + dark_current·exposure on
    average, with variance g²·N + read_noise² + 1/12 (for rounding), when gain errors, blur, lag and zingers are off.
    """

    photons: float = 2000.0
    """Photons that the open beam gives a pixel in an exposure of nominal_exposure_s; others in proportion."""
    nominal_exposure_s: float = 0.02
    counts_per_photon: float = 5.0
    """Gain, g."""
    offset: float = 200.0
    """Counts that every pixel reads without beam and at no exposure."""
    dark_current: float = 100.0
    """Counts a second, without beam; its own shot noise is left out."""
    read_noise: float = 8.0
    """Standard deviation, counts."""
    flat_unevenness: float = 0.12
    """Smooth fall-off and structure of the open beam, part of its brightest."""
    beam_drift: float = 0.005
    """Largest slow change of the beam, part of its intensity."""
    blur_px: float = 0.4
    """Standard deviation of the detector's point spread, pixels."""
    lag: float = 0.0
    """Part of each frame's light that is the frame before's."""
    gain_error: float = 0.02
    """Standard deviation of the pixels' linear gain; flats take it out."""
    ring_error: float = 0.002
    """Spread of the columns' non-linear gain: none in the open beam, so flats leave it, and it makes rings."""
    dead_pixels: float = 1e-4
    """Part of the pixels that never see light."""
    hot_pixels: float = 1e-4
    """Part of the pixels that have a hundred times the dark current, and no less than 2000 counts a second."""
    zingers: float = 0.1
    """Mean number a frame of single pixels hit by a stray photon, worth thousands of counts; dark frames too."""
    hard_fraction: float = 0.0
    """Part of the photons in the beam's hard half: 0 is one energy; between 0 and 1, the beam hardens."""

    def __post_init__(self) -> None:
        for name in ("dead_pixels", "hot_pixels", "lag", "hard_fraction", "flat_unevenness", "beam_drift"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give a part between 0 and 1")
        for field in fields(self):
            value = getattr(self, field.name)
            if not (np.isfinite(value) and value >= 0):
                raise ValueError(f"{field.name} is {value}: give a finite number, zero or more")
        for name in ("counts_per_photon", "nominal_exposure_s"):
            if getattr(self, name) == 0:
                raise ValueError(f"{name} is 0: give a positive number")

    @classmethod
    def parse(cls, settings: Sequence[str]) -> Self:
        """Make a detector from texts "name=value", apart from which everything is as usual."""
        names = [field.name for field in fields(cls)]
        values: dict[str, float] = {}
        for setting in settings:
            name, equals, text = (part.strip() for part in setting.partition("="))
            if not equals:
                raise ValueError(f"the physics setting is {setting!r}: give NAME=VALUE, such as lag=0.1")
            if name not in names:
                raise ValueError(f"there is no physics setting {name!r}: give one of {', '.join(names)}")
            if name in values:
                raise ValueError(f"{name} is given twice, as {values[name]:g} and {text}: give it once")
            try:
                values[name] = float(text)
            except ValueError as error:
                raise ValueError(f"{name} is {text!r}: give a number") from error
        return cls(**values)

    @classmethod
    def ideal(cls, **changes: Any) -> Self:
        """Make a detector with nothing but photon noise, apart from the given changes."""
        beam = ("photons", "nominal_exposure_s", "counts_per_photon")
        effects = [field.name for field in fields(cls) if field.name not in beam]
        return cls(**{**dict.fromkeys(effects, 0.0), **changes})


class Detector:
    """Expose frames, one after another: random numbers and lag go on from frame to frame."""

    def __init__(self, physics: DetectorPhysics, n_v: int, n_u: int, seed: int = 0) -> None:
        if min(n_v, n_u) < 1:
            raise ValueError(f"the detector has {n_v}×{n_u} pixels: give at least one each way")
        self.physics = physics
        self.shape = (n_v, n_u)
        pattern = np.random.default_rng([seed, 0])
        self.open_beam = _open_beam(pattern, self.shape, physics.flat_unevenness)
        self.gain = np.maximum(1 + physics.gain_error * pattern.standard_normal(self.shape), 0)
        self.ring = physics.ring_error * pattern.standard_normal(n_u)
        # One draw for both, so that no pixel is dead and hot.
        lot = pattern.uniform(size=self.shape)
        self.dead = lot < physics.dead_pixels
        self.hot = lot > 1 - physics.hot_pixels
        self._drift = pattern.uniform(0, 1, (3, 2))
        self._random = np.random.Generator(np.random.SFC64([seed, 1]))
        self._last_light = np.zeros(self.shape)

    def expose(
        self,
        line_integrals: np.ndarray | None,
        *,
        time_s: float,
        beam: bool,
        exposure_s: float,
        hard_line_integrals: np.ndarray | None = None,
        noise: bool = True,
    ) -> np.ndarray:
        """Return uint16 (n_v, n_u) counts of one exposure; no line integrals or no beam make a dark, zeros a flat.

        line_integrals: (n_v, n_u), or (n_sub, n_v, n_u) at moments within the exposure, whose light is averaged;
        hard_line_integrals: the same at the beam's high energy, when `hard_fraction` is set; the others are the low;
        noise: False for what the detector reads on average, without zingers.
        """
        if not (np.isfinite(exposure_s) and exposure_s >= 0):
            raise ValueError(f"exposure_s is {exposure_s}: give a number of seconds, zero or more")
        physics = self.physics
        light = np.zeros(self.shape)
        if beam and line_integrals is not None:
            transmission = self._transmission(line_integrals, hard_line_integrals)
            photons = physics.photons * exposure_s / physics.nominal_exposure_s * self.beam_at(time_s)
            mean = photons * self.open_beam * transmission
            if physics.blur_px > 0:
                mean = gaussian_filter(mean, physics.blur_px, mode="nearest")
            light = (self._random.poisson(mean) if noise else mean) * (1 + self.ring * (1 - transmission))
        if physics.lag > 0:
            light = (1 - physics.lag) * light + physics.lag * self._last_light
            self._last_light = light
        counts = self.gain * physics.counts_per_photon * light
        counts[self.dead] = 0
        dark = physics.dark_current * exposure_s
        counts += physics.offset + dark
        counts[self.hot] += max(99 * physics.dark_current, 2000.0) * exposure_s
        if noise and physics.read_noise > 0:
            counts += physics.read_noise * self._random.standard_normal(self.shape, dtype=np.float32)
        n_zingers = self._random.poisson(physics.zingers) if noise and physics.zingers > 0 else 0
        if n_zingers:
            where = self._random.integers(0, counts.size, n_zingers)
            np.add.at(counts.reshape(-1), where, 3000 + self._random.exponential(6000, n_zingers))
        return np.clip(np.rint(counts), 0, FULL_SCALE).astype(np.uint16)

    def beam_at(self, time_s: float) -> float:
        """Return the beam's intensity at a time, 1 without drift: three slow waves of one to ten minutes."""
        if self.physics.beam_drift == 0:
            return 1.0
        periods_s = 60 * 10 ** self._drift[:, 0]
        waves = np.sin(2 * np.pi * (time_s / periods_s + self._drift[:, 1]))
        return float(1 + self.physics.beam_drift * np.mean(waves))

    def _transmission(self, line_integrals: np.ndarray, hard_line_integrals: np.ndarray | None) -> np.ndarray:
        """Return float64 (n_v, n_u): the part of the photons that pass."""
        fraction = self.physics.hard_fraction
        passed = self._passed("line_integrals", line_integrals)
        if fraction == 0:
            return passed
        if hard_line_integrals is None:
            raise ValueError(
                f"hard_fraction is {fraction} but there are no hard_line_integrals: "
                "give those of the beam's high energy, or set hard_fraction to 0"
            )
        return (1 - fraction) * passed + fraction * self._passed("hard_line_integrals", hard_line_integrals)

    def _passed(self, name: str, line_integrals: np.ndarray) -> np.ndarray:
        values = np.asarray(line_integrals, dtype=np.float64)
        if values.shape[-2:] != self.shape or values.ndim not in (2, 3):
            raise ValueError(
                f"{name} has shape {values.shape} and the detector {self.shape}: give (n_v, n_u) or (n_sub, n_v, n_u)"
            )
        passed = np.exp(-values)
        # Light adds up during an exposure, line integrals do not.
        return passed if values.ndim == 2 else passed.mean(axis=0)


def _open_beam(rng: np.random.Generator, shape: tuple[int, int], unevenness: float) -> np.ndarray:
    """Return float64 (n_v, n_u), 1 at the brightest: a fall-off towards one side and smooth structure."""
    v, u = (np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape)
    centre_v, centre_u = rng.uniform(-0.4, 0.4, 2)
    bowl = (v[:, None] - centre_v) ** 2 + (u[None, :] - centre_u) ** 2
    waves = sum(
        np.sin(np.pi * (k * v[:, None] + phase)) * np.sin(np.pi * (k * u[None, :] + other))
        for k, (phase, other) in zip((1.5, 3.0, 5.0), rng.uniform(0, 2, (3, 2)), strict=True)
    )
    loss = bowl - bowl.min() + 0.15 * waves
    loss = loss - loss.min()
    return 1 - unevenness * loss / max(float(loss.max()), 1e-12)
