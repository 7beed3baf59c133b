"""The formulas of corrections and filter give the same on a GPU; skipped where there is none."""

from dataclasses import fields, replace

import numpy as np
import pytest

from bluesky_jit.tomo.corrections.air import beam_of, level_out
from bluesky_jit.tomo.corrections.transmission import make_reference, transmission
from bluesky_jit.tomo.geometry import ConeGeometry
from bluesky_jit.tomo.kernels.cuda import why_not
from bluesky_jit.tomo.ramp import filtered, make_filter

reason = why_not()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(reason), reason=reason)]

CONE = ConeGeometry(n_u=96, n_v=40, pixel_mm=0.3, source_axis_mm=100, source_detector_mm=200)


@pytest.fixture
def cupy():
    return pytest.importorskip("cupy")


def on_device(cupy, record):
    """Return a record with its arrays on the GPU."""
    arrays = {field.name: getattr(record, field.name) for field in fields(record)}
    return replace(
        record, **{name: cupy.asarray(value) for name, value in arrays.items() if isinstance(value, np.ndarray)}
    )


def test_counts_become_the_same_filtered_values_as_on_the_cpu(cupy):
    rng = np.random.default_rng(1)
    shape = (CONE.n_v, CONE.n_u)
    flat = rng.uniform(9000, 11_000, shape).astype(np.float32)
    flat[3, 5:8] = 0
    reference = make_reference(np.full(shape, 100, dtype=np.float32), flat)
    counts = rng.integers(50, 10_000, shape).astype(np.uint16)
    values, clipped = transmission(counts, reference)
    theirs, their_clipped = transmission(cupy.asarray(counts), on_device(cupy, reference))
    assert their_clipped == clipped
    np.testing.assert_allclose(cupy.asnumpy(theirs), values, rtol=1e-5)
    beam, their_beam = beam_of(values, 9), beam_of(theirs, 9)
    assert their_beam.level == pytest.approx(beam.level, rel=1e-6)
    level_out(values, beam, 9)
    level_out(theirs, their_beam, 9)
    ramp = make_filter(CONE)
    ours = filtered(-np.log(values), ramp)
    result = filtered(-cupy.log(theirs), on_device(cupy, ramp))
    np.testing.assert_allclose(cupy.asnumpy(result), ours, atol=1e-5 * np.abs(ours).max())
