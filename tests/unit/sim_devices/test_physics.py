"""The detector's physics: the counts have the statistics asked for, and every setting does what it says."""

import numpy as np
import pytest

from sim_devices.phantom import experiment
from sim_devices.physics import Detector, DetectorPhysics

SHAPE = (60, 80)
OPEN = np.zeros(SHAPE)
EXPOSURE_S = 0.02


def detector(seed=0, **settings):
    return Detector(DetectorPhysics.ideal(**settings), *SHAPE, seed)


def exposed(detector, line_integrals=OPEN, *, time_s=0.0, beam=True, exposure_s=EXPOSURE_S, n=1, **more):
    """Return float64 (n, n_v, n_u) counts of n exposures."""
    frames = [
        detector.expose(line_integrals, time_s=time_s, beam=beam, exposure_s=exposure_s, **more) for _ in range(n)
    ]
    return np.array(frames, dtype=np.float64)


@pytest.mark.parametrize(("photons", "gain", "read_noise"), [(500.0, 3.0, 0.0), (40.0, 10.0, 25.0), (8000.0, 2.0, 6.0)])
def test_counts_have_the_mean_and_variance_of_poisson_statistics(photons, gain, read_noise):
    line_integral = 0.7
    ours = detector(photons=photons, counts_per_photon=gain, read_noise=read_noise, offset=300.0)
    counts = exposed(ours, np.full(SHAPE, line_integral), n=60)
    reached = photons * np.exp(-line_integral)
    assert counts.mean() == pytest.approx(300 + gain * reached, rel=1e-3)
    assert counts.var() == pytest.approx(gain**2 * reached + read_noise**2 + 1 / 12, rel=0.02)
    # Pixels and frames are independent.
    noise = counts - counts.mean()
    assert abs(np.mean(noise[:, :, 1:] * noise[:, :, :-1])) < 0.02 * counts.var()
    assert abs(np.mean(noise[1:] * noise[:-1])) < 0.02 * counts.var()


def test_transmission_follows_beer_lambert():
    ours = detector(photons=20000.0, counts_per_photon=1.0)
    open_beam = exposed(ours, n=10).mean()
    thick = exposed(ours, np.full(SHAPE, 1.5), n=10).mean()
    assert -np.log(thick / open_beam) == pytest.approx(1.5, abs=1e-3)


def test_longer_exposures_collect_more_photons():
    ours = detector(photons=1000.0, nominal_exposure_s=0.02, counts_per_photon=2.0)
    assert exposed(ours, exposure_s=0.05, n=5).mean() == pytest.approx(5000.0, rel=0.01)
    assert exposed(ours, exposure_s=0.0).max() == 0


def test_darks_see_no_beam():
    ours = Detector(DetectorPhysics(zingers=0.0, hot_pixels=0.0), *SHAPE)
    shut = exposed(ours, beam=False, n=20)
    no_line_integrals = exposed(ours, None, n=20)
    expected = 200 + 100 * EXPOSURE_S
    assert shut.mean() == pytest.approx(expected, abs=0.2)
    assert no_line_integrals.mean() == pytest.approx(expected, abs=0.2)
    assert shut.std() == pytest.approx(8.0, rel=0.02)


def test_counts_saturate():
    counts = exposed(detector(photons=1e6, counts_per_photon=5.0))
    assert counts.min() == 65535
    assert detector(photons=1e6).expose(OPEN, time_s=0, beam=True, exposure_s=EXPOSURE_S).dtype == np.uint16
    # Noise below zero does not wrap round to a bright pixel.
    assert exposed(detector(read_noise=50.0), beam=False).max() < 500


def test_same_seed_gives_the_same_frames_and_another_seed_others():
    def series(seed):
        return exposed(Detector(DetectorPhysics(), *SHAPE, seed), np.full(SHAPE, 0.5), n=3)

    assert np.array_equal(series(1), series(1))
    assert not np.array_equal(series(1), series(2))
    frames = series(1)
    assert not np.array_equal(frames[0], frames[1])


def test_dark_current_grows_with_exposure():
    ours = detector(dark_current=400.0, offset=10.0)
    assert exposed(ours, beam=False, exposure_s=0.5).mean() == pytest.approx(210.0)
    assert exposed(ours, beam=False, exposure_s=1.0).mean() == pytest.approx(410.0)


def test_open_beam_is_smooth_and_as_uneven_as_asked():
    flat = exposed(detector(photons=1e5, counts_per_photon=0.5, flat_unevenness=0.3), n=20).mean(axis=0)
    assert flat.min() / flat.max() == pytest.approx(0.7, abs=0.01)
    assert np.abs(np.diff(flat, axis=1)).max() < 0.05 * flat.max()


def test_beam_drifts_slowly_within_its_bound():
    ours = detector(beam_drift=0.05)
    beam = np.array([ours.beam_at(time_s) for time_s in np.arange(0.0, 3600.0)])
    assert beam.std() > 0.005
    assert np.abs(beam - 1).max() <= 0.05
    assert np.abs(np.diff(beam)).max() < 0.006
    assert detector().beam_at(123.0) == 1.0
    bright, faint = beam.argmax(), beam.argmin()
    assert exposed(ours, time_s=bright, n=5).mean() > exposed(ours, time_s=faint, n=5).mean()


def test_blur_softens_edges_and_keeps_the_light():
    edge = np.where(np.arange(SHAPE[1]) < 40, 0.0, 3.0) * np.ones(SHAPE)
    sharp = exposed(detector(photons=1e4, counts_per_photon=1.0), edge, n=20).mean(axis=(0, 1))
    soft = exposed(detector(photons=1e4, counts_per_photon=1.0, blur_px=1.5), edge, n=20).mean(axis=(0, 1))
    assert np.abs(np.diff(soft)).max() < 0.5 * np.abs(np.diff(sharp)).max()
    assert soft.mean() == pytest.approx(sharp.mean(), rel=2e-3)


def test_lag_leaves_a_ghost_of_the_frame_before():
    ours = detector(photons=1000.0, counts_per_photon=10.0, lag=0.1)
    exposed(ours, n=30)
    ghost, fainter = exposed(ours, beam=False)[0].mean(), exposed(ours, beam=False)[0].mean()
    assert ghost == pytest.approx(1000.0, rel=0.02)
    assert fainter == pytest.approx(100.0, rel=0.05)


def test_gain_errors_vanish_by_flat_field_but_ring_errors_stay():
    def corrected(**settings):
        ours = detector(photons=1e5, counts_per_photon=0.5, **settings)
        flat, seen = exposed(ours, n=40).mean(axis=0), exposed(ours, np.full(SHAPE, 1.5), n=40).mean(axis=0)
        return flat, -np.log(seen / flat)

    flat, line_integrals = corrected(gain_error=0.05)
    assert flat.std() / flat.mean() == pytest.approx(0.05, rel=0.1)
    assert line_integrals.std() < 0.003
    flat, line_integrals = corrected(ring_error=0.02)
    assert flat.std() / flat.mean() < 0.003
    # The same error in every row of a column: a ring in every slice.
    assert line_integrals.mean(axis=0).std() == pytest.approx(0.02 * (1 - np.exp(-1.5)), rel=0.3)
    assert (line_integrals - line_integrals.mean(axis=0)).std() < 0.003


def test_dead_pixels_see_nothing_and_hot_pixels_see_too_much():
    ours = detector(dead_pixels=0.02, hot_pixels=0.03, dark_current=50.0, offset=100.0)
    assert ours.dead.mean() == pytest.approx(0.02, abs=0.008)
    assert ours.hot.mean() == pytest.approx(0.03, abs=0.01)
    assert not np.any(ours.dead & ours.hot)
    dark, flat = exposed(ours, beam=False, exposure_s=0.1)[0], exposed(ours, exposure_s=0.1)[0]
    assert np.all(flat[ours.dead] == 105)
    assert np.all(flat[~ours.dead] > 1000)
    assert np.all(dark[ours.hot] == 600)
    assert np.all(dark[~ours.hot] == 105)


def test_zingers_come_at_their_rate_and_in_another_place_each_time():
    ours = detector(zingers=2.5)
    hits = exposed(ours, beam=False, n=200) > 0
    assert hits.sum() == pytest.approx(500, abs=70)
    assert hits.sum(axis=0).max() <= 3


def test_motion_within_an_exposure_averages_light_not_line_integrals():
    moments = np.stack([np.zeros(SHAPE), np.full(SHAPE, 4.0)])
    counts = exposed(detector(photons=1e4, counts_per_photon=1.0), moments, n=5)
    assert counts.mean() == pytest.approx(1e4 * (1 + np.exp(-4.0)) / 2, rel=2e-3)


def test_two_energies_harden_the_beam():
    phantom = experiment("A", seed=1, radius_mm=30.0, half_height_mm=25.0)
    low, high = phantom.attenuations("low")[1], phantom.attenuations("high")[1]
    ours = detector(photons=1e5, counts_per_photon=0.5, hard_fraction=0.5)
    apparent = []
    for thickness_mm in (1.0, 60.0):
        soft, hard = np.full(SHAPE, low * thickness_mm), np.full(SHAPE, high * thickness_mm)
        passed = exposed(ours, soft, hard_line_integrals=hard, n=10).mean()
        apparent.append(-np.log(passed / 5e4) / thickness_mm)
    assert apparent[0] == pytest.approx((low + high) / 2, rel=0.02)
    assert high < apparent[1] < 0.99 * apparent[0]


def test_impossible_requests_say_what_to_give():
    with pytest.raises(ValueError, match=r"lag is 1\.5"):
        DetectorPhysics(lag=1.5)
    with pytest.raises(ValueError, match="photons is -1"):
        DetectorPhysics(photons=-1.0)
    with pytest.raises(ValueError, match="counts_per_photon is 0"):
        DetectorPhysics(counts_per_photon=0.0)
    with pytest.raises(ValueError, match="0×80"):
        Detector(DetectorPhysics(), 0, 80)
    with pytest.raises(ValueError, match=r"\(3, 3\).*\(60, 80\)"):
        exposed(detector(), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="hard_line_integrals"):
        exposed(detector(hard_fraction=0.3))
    with pytest.raises(ValueError, match="exposure_s is -1"):
        exposed(detector(), exposure_s=-1.0)


def test_settings_are_read_from_text():
    assert DetectorPhysics.parse([]) == DetectorPhysics()
    assert DetectorPhysics.parse(["lag=0.1", "offset = 1e3"]) == DetectorPhysics(lag=0.1, offset=1000.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["lag"], "the physics setting is 'lag': give NAME=VALUE, such as lag=0.1"),
        (["glow=1"], "there is no physics setting 'glow': give one of photons, nominal_exposure_s, "),
        (["lag=much"], "lag is 'much': give a number"),
        (["lag=0.1", "lag=0.2"], "lag is given twice, as 0.1 and 0.2: give it once"),
        (["lag=3"], "lag is 3.0: give a part between 0 and 1"),
        (["photons=nan"], "photons is nan: give a finite number"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        DetectorPhysics.parse(settings)
