"""Flats of several times: each projection is compared with flats of its own time."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from bluesky_jit.intake.sources import open_scan
from bluesky_jit.tomo.corrections.darkflat import DarkFlat
from bluesky_jit.tomo.corrections.transmission import transmission

SHAPE = (3, 4)
REAL = Path(__file__).parents[5] / "shared" / "data"
needs_real_scans = pytest.mark.skipif(not REAL.exists(), reason="the folder of real scans is not here")


def frames(value, n=2):
    return np.full((n, *SHAPE), value, dtype=np.uint16)


def with_sets(*sets):
    """Return darks of 100 counts and sets of flats: counts, time of the first, and how many projections came before."""
    result = DarkFlat(*SHAPE)
    result.add_darks(frames(100))
    for counts, time_s, after in sets:
        result.add_flats(frames(counts), times_s=np.array([time_s, time_s + 2.0]), after=after)
    return result


def gain(dark_flat, **when):
    values = dark_flat.reference_at(**when).gain
    assert np.ptp(values) == 0
    return float(values[0, 0])


def test_between_two_sets_flats_are_interpolated_in_time():
    dark_flat = with_sets((10_100, -1.0, 0), (12_100, 99.0, 50))
    # The sets' mean times are 0 and 100 s.
    assert gain(dark_flat, time_s=25.0, acquisition=40) == pytest.approx(10_500)
    assert gain(dark_flat, time_s=75.0, acquisition=41) == pytest.approx(11_500)


def test_with_three_sets_the_two_around_a_projection_count():
    dark_flat = with_sets((10_100, -1.0, 0), (12_100, 99.0, 50), (9100, 199.0, 100))
    assert gain(dark_flat, time_s=50.0, acquisition=25) == pytest.approx(11_000)
    assert gain(dark_flat, time_s=150.0, acquisition=75) == pytest.approx(10_500)


def test_before_the_first_and_after_the_last_set_the_nearest_holds():
    dark_flat = with_sets((10_100, 99.0, 10), (12_100, 199.0, 50))
    assert gain(dark_flat, time_s=20.0, acquisition=3) == 10_000
    assert gain(dark_flat, time_s=500.0, acquisition=80) == 12_000


@pytest.mark.parametrize(
    ("first_s", "second_s", "frame_s"),
    [
        (np.nan, np.nan, np.nan),
        (np.nan, 99.0, 20.0),
        (-1.0, 99.0, np.nan),
        (7.0, 7.0, 7.0),
        (99.0, -1.0, 50.0),
        (-1.0, 99.0, 1e9),
    ],
    ids=["no stamps", "one set has none", "the frame has none", "all equal", "backwards", "another clock"],
)
def test_where_time_stamps_fail_the_projections_number_says_how_near_each_set_is(first_s, second_s, frame_s):
    dark_flat = with_sets((10_100, first_s, 0), (12_100, second_s, 50))
    assert gain(dark_flat, time_s=frame_s, acquisition=12) == pytest.approx(10_000 + 2000 * 12.5 / 50)


def test_flats_that_come_one_by_one_with_no_projection_between_are_one_set():
    dark_flat = DarkFlat(*SHAPE)
    for value in (9000, 10_000, 11_000):
        dark_flat.add_flats(frames(value, n=1), times_s=np.array([value / 1000]), after=7)
    assert (dark_flat.flats, dark_flat.flat_drift) == (3, 0)
    assert gain(dark_flat) == pytest.approx(10_000)


def test_sets_may_come_in_any_order():
    assert gain(with_sets((12_100, 99.0, 50), (10_100, -1.0, 0)), time_s=25.0, acquisition=12) == pytest.approx(10_500)


def test_the_reference_is_the_same_object_while_it_is_the_same():
    dark_flat = with_sets((10_100, 0.0, 0))
    assert dark_flat.reference_at(time_s=1.0, acquisition=1) is dark_flat.reference_at(time_s=2.0, acquisition=2)


def test_a_pixel_that_dies_between_the_sets_is_dead_in_all_projections():
    dark_flat = with_sets((10_100, 0.0, 0))
    dying = frames(10_100)
    dying[:, 1, 2] = 100
    dark_flat.add_flats(dying, after=50)
    reference = dark_flat.reference_at(acquisition=3)
    assert dark_flat.dead_pixels == 1
    values, _ = transmission(frames(5100)[0], reference)
    np.testing.assert_allclose(values, 0.5, rtol=1e-6)


def test_the_drift_between_sets_is_told():
    assert with_sets((10_100, 0.0, 0)).flat_drift == 0
    assert with_sets((10_100, 0.0, 0), (10_250, 9.0, 5), (9900, 20.0, 9)).flat_drift == pytest.approx(-0.02)


def test_a_copy_compares_with_all_sets_and_goes_on_by_itself():
    dark_flat = with_sets((10_100, -1.0, 0), (12_100, 99.0, 100))
    copied = dark_flat.copy()
    assert gain(copied, time_s=25.0, acquisition=25) == gain(dark_flat, time_s=25.0, acquisition=25) == 10_500
    dark_flat.add_flats(frames(9100), after=200)
    assert gain(copied, acquisition=300) == 12_000
    assert gain(dark_flat, acquisition=300) == 9000


def test_of_borrowed_flats_the_last_set_holds_until_own_ones_come():
    lent = DarkFlat.borrowed(with_sets((10_100, 0.0, 0), (12_100, 9.0, 50)))
    assert gain(lent, time_s=4.0, acquisition=25) == 12_000
    lent.add_flats(frames(8100), after=0)
    assert gain(lent, time_s=4.0, acquisition=25) == 8000


def test_flats_with_the_shutter_closed_after_the_scan_are_refused_and_the_first_ones_hold():
    dark_flat = with_sets((10_100, 0.0, 0))
    with pytest.raises(ValueError, match="Did the shutter open"):
        dark_flat.add_flats(frames(150), after=50)
    assert gain(dark_flat, acquisition=25) == 10_000


@needs_real_scans
def test_a_real_scan_is_as_bright_at_180_degrees_as_at_0_only_with_flats_of_both_ends(tmp_path):
    """Diamond K11: a parallel beam sees the same sample from behind, while the beam has gained 1.5 %."""
    with h5py.File(REAL / "k11-18014.nxs") as record:
        keys = record["entry/instrument/imaging/image_key"][()].ravel()
    path = tmp_path / "scan.nxs"
    with h5py.File(path, "w") as file:
        file["entry/data/data"] = h5py.ExternalLink(REAL / "k11-18014-imaging.h5", "entry/detector/detector")
        file["entry/data/image_key"] = keys
        angles = np.zeros(len(keys))
        angles[keys == 0] = np.linspace(0, 180, np.count_nonzero(keys == 0))
        file["entry/data/rotation_angle"] = angles
    scan = open_scan(path)
    both, before_only = DarkFlat(*scan.frame_shape), DarkFlat(*scan.frame_shape)
    brightness = {id(both): [], id(before_only): []}
    for block in scan.blocks():
        for dark_flat in (both, before_only):
            if block.kind == "dark":
                dark_flat.add_darks(block.counts)
            elif block.kind == "flat":
                if dark_flat is both or block.after == 0:
                    dark_flat.add_flats(block.counts, times_s=block.frame_times_s, after=block.after)
            else:
                for counts, number in zip(block.counts, block.acquisition, strict=True):
                    reference = dark_flat.reference_at(acquisition=int(number))
                    brightness[id(dark_flat)].append(transmission(counts, reference)[0].mean())
    assert both.flat_drift == pytest.approx(0.015, abs=0.001)

    def change(dark_flat):
        means = brightness[id(dark_flat)]
        return np.mean(means[-300:]) / np.mean(means[:300]) - 1

    assert change(before_only) > 0.01
    assert abs(change(both)) < 0.001
