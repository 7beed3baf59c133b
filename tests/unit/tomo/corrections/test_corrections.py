"""What is corrected in every frame: refused where it cannot be meant."""

import pickle

import pytest

from bluesky_jit.tomo.corrections.wanted import Corrections


def test_nothing_is_corrected_unless_asked_for():
    assert Corrections().to_metadata() == {}


def test_what_is_corrected_goes_into_the_records():
    corrections = Corrections(air_columns=8, hardening=(1.0, 0.05), delta_beta=200, energy_kev=20)
    assert corrections.to_metadata() == {
        "air_columns": 8,
        "delta_beta": 200,
        "energy_kev": 20,
        "hardening": [1.0, 0.05],
    }
    assert pickle.loads(pickle.dumps(corrections)) == corrections  # noqa: S301


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"zinger_threshold": -0.1}, "zinger_threshold is -0.1: give a number above 0, or 0 to leave"),
        ({"air_columns": -3}, "air_columns is -3"),
        ({"delta_beta": float("nan")}, "delta_beta is nan"),
        ({"ring_width": -1}, "ring_width is -1"),
        ({"energy_kev": 0.0}, "energy_kev is 0.0: give a positive number"),
        ({"propagation_mm": -5.0}, "propagation_mm is -5.0"),
        ({"delta_beta": 100.0}, "needs the photon energy"),
        ({"ring_width": 9}, "give the number of projections"),
        ({"hardening": (1.0, float("inf"))}, "finite coefficients"),
        ({"hardening": (1.0,) * 7}, "at most 6"),
        ({"hardening": (0.0, 1.0)}, "hardening begins with 0.0"),
    ],
)
def test_values_that_cannot_be_meant_are_refused_by_name(values, text):
    with pytest.raises(ValueError, match=text):
        Corrections(**values)
