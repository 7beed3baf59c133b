"""What learning needs of a run's window of projections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from bluesky_jit.session.learning.choosing import AUTO, frames_of, require_preset
from bluesky_jit.settings_sections import LearnSettings

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequences:
    """Say what is kept of the projections for learning.

    frames: time frames of a sequence, whose windows end `spacing` projections apart; history: projections kept beyond
    the window, so that pairs can be made of older ones while newer ones are held out; problem: what cannot be done;
    too_short: why the run itself has room for one frame only.
    """

    frames: int = 1
    spacing: int = 60
    history: int = 0
    problem: str = ""
    too_short: str = ""


def require_learnable(settings: LearnSettings) -> None:
    """Raise ValueError for settings that no run could be learned with."""
    require_preset(settings.preset)
    if frames_of(settings.preset) > 1 and settings.frame_spacing % settings.splits:
        raise ValueError(
            f"learn.frame_spacing is {settings.frame_spacing}: give a multiple of learn.splits, which is "
            f"{settings.splits}, so that each split has the same places in all frames"
        )


def require_frames(settings: LearnSettings, sequences: Sequences) -> None:
    """Raise ValueError where a preset needs more time frames than there are; "auto" does without."""
    if settings.preset != AUTO and frames_of(settings.preset) > sequences.frames:
        raise ValueError(
            f"preset {settings.preset} looks at several time frames: {sequences.too_short or sequences.problem}"
        )


def first_possible(options: tuple[Sequences, ...], make: Callable[[Sequences], T]) -> tuple[Sequences, T]:
    """Return the first option that a window can be made with, and what was made; raise what the last one raises.

    A window that is refused with what learning wants, for its memory for instance, may be possible without: slices come
    first.
    """
    refusal = ""
    for sequences in options[:-1]:
        try:
            made = make(sequences)
        except ValueError as error:
            refusal = refusal or str(error)
            continue
        return _told(sequences, refusal), made
    return _told(options[-1], refusal), make(options[-1])


def _told(sequences: Sequences, refusal: str) -> Sequences:
    return replace(sequences, problem=f"{sequences.problem}: {refusal}") if refusal else replace(sequences, problem="")


def reach_of(sequences: Sequences, n_projections: int) -> int:
    """Return how many projections the windows of a sequence span."""
    return n_projections + (sequences.frames - 1) * sequences.spacing


def sequences_of(settings: LearnSettings, n_projections: int, expected: int | None = None) -> tuple[Sequences, ...]:
    """Return what to keep for learning, and what to make do with where that is not possible, the best first.

    expected: projections of the whole run, as far as that is known.
    """
    plain = Sequences(spacing=settings.frame_spacing)
    if not settings.enabled:
        return (plain,)
    frames = frames_of(settings.preset)
    without = Sequences(frames=frames, spacing=settings.frame_spacing)
    reach = reach_of(without, n_projections)
    if expected is not None and frames > 1 and expected < reach:
        too_short = (
            f"{frames} of them take {reach} projections ({n_projections} and {frames - 1} × {settings.frame_spacing}, "
            f"learn.frame_spacing) and this run has {expected}: scan longer, or set a smaller learn.frame_spacing"
        )
        frames, without = 1, Sequences(spacing=settings.frame_spacing, too_short=too_short)
    options = []
    if settings.unseen_every:
        # The windows of pairs end at the cut while those of a whole sequence come after it.
        past = reach_of(without, n_projections) + (frames - 1) * settings.frame_spacing
        options.append(replace(without, history=past))
        told = "no windows are held out, so that learning is judged by other places of the same projections only"
        without = replace(without, problem=told)
    options.append(without)
    if frames > 1:
        options.append(Sequences(spacing=settings.frame_spacing, problem="time frames cannot be made"))
    return tuple(options)
