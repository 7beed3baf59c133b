"""How long frames take to be on show."""

from __future__ import annotations

import numpy as np
import pytest

from bluesky_jit.bench.arrivals import Arrival, Delays, delays_s


def arrivals(*pairs: tuple[float, float]) -> list[Arrival]:
    return [Arrival(arrived_s=arrived_s, frame_time_s=frame_time_s) for arrived_s, frame_time_s in pairs]


def test_a_frame_is_on_show_with_the_first_image_that_has_it():
    # Four frames, two images: the first has frames 1 and 2, the second has all.
    delays = delays_s(np.array([1.0, 2.0, 3.0, 4.0]), arrivals((2.5, 2.0), (4.25, 4.0)))
    assert delays == pytest.approx([1.5, 0.5, 1.25, 0.25])


def test_a_frame_that_no_image_has_was_not_shown():
    assert np.isnan(delays_s(np.array([1.0, 2.0]), arrivals((1.5, 1.0)))).tolist() == [False, True]
    assert np.isnan(delays_s(np.array([1.0]), [])).all()


def test_time_stamps_may_lose_digits_on_their_way():
    assert delays_s(np.array([1.0000001]), arrivals((1.5, 1.0))) == pytest.approx([0.5])


def test_an_older_image_that_comes_late_shows_nothing_anew():
    delays = delays_s(np.array([1.0, 2.0]), arrivals((2.5, 2.0), (3.0, 1.0)))
    assert delays == pytest.approx([1.5, 0.5])


def test_delays_are_summed_up_in_ms():
    times_s = np.arange(100.0)
    found = Delays.of(times_s, arrivals(*((time_s + 1e-3 * k, time_s) for k, time_s in enumerate(times_s))))
    assert found.frames == 100
    assert (found.p50_ms, found.p95_ms, found.p99_ms) == pytest.approx((49.5, 94.05, 98.01), abs=0.01)


def test_frames_that_were_never_shown_are_no_small_delay():
    found = Delays.of(np.array([1.0, 2.0]), arrivals((1.5, 1.0)))
    assert (found.frames, found.unseen, found.p99_ms) == (2, 1, pytest.approx(500.0))
    with pytest.raises(RuntimeError, match="1 of 2 frames were never shown"):
        found.complete()
    with pytest.raises(RuntimeError, match="none of 1 frames was ever shown"):
        Delays.of(np.array([2.0]), arrivals((1.5, 1.0)))


def test_a_frame_from_when_no_images_came_is_not_late_but_unseen():
    # Between 1 s and 5 s the denoiser was not ready: the image of 5 s shows what is newer than 4 s.
    delays = delays_s(np.array([1.0, 2.0, 4.5, 5.0]), arrivals((1.25, 1.0), (5.25, 5.0)), within_s=1.0)
    assert delays == pytest.approx([0.25, np.nan, 0.75, 0.25], nan_ok=True)
