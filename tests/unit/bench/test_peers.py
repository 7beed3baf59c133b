"""Peers are asked the same as our kernel and answer the same, or the comparison would be idle."""

from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest

from bluesky_jit.bench import peers
from bluesky_jit.bench.parallel import by_algotom, by_astra, by_skimage, make_sinogram, ours
from bluesky_jit.bench.setups import Turn, make_turn
from bluesky_jit.tomo.kernels.numba import NumbaKernel

INSIDE = 25
"""Pixels within which images are compared: at the rim peers make something else of the end of a row."""


@pytest.fixture(scope="module")
def turn() -> Turn:
    return make_turn(quick=True)


def test_torch_makes_the_same_pairs_and_slices(turn: Turn) -> None:
    by_torch = peers.torch_grid_sample(turn)
    for jobs in (turn.jobs(turn.patches(8, 3), splits=2), turn.jobs((turn.grids["oblique"],))):
        scale, apart = peers.agreement(NumbaKernel().run(jobs), by_torch(jobs))
        assert scale == pytest.approx(1, abs=1e-4)
        assert apart < 5e-5


@pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute:DeprecationWarning")
@pytest.mark.parametrize("orientation", ["axial", "upright", "oblique"])
def test_rtk_makes_the_same_slices_in_its_own_scale(turn: Turn, orientation: str) -> None:
    pytest.importorskip("itk")
    prepare = peers.rtk_backprojection(turn)
    assert prepare is not None
    grid = turn.grids[orientation]
    middle = (slice(None), slice(30, -30), slice(30, -30))
    mine = NumbaKernel().run(turn.jobs((grid,)))[0, 0][middle]
    run = prepare(grid)
    scale, apart = peers.agreement(mine, run()[middle])
    assert scale == pytest.approx(np.pi / len(turn.angles_rad), rel=2e-3)
    assert apart < 3e-3
    np.testing.assert_array_equal(run(), run())


@pytest.mark.parametrize("peer", [by_skimage, by_astra, lambda sinogram: by_algotom(sinogram, threads=1)])
def test_parallel_peers_make_the_same_slice(peer) -> None:
    if peer is not by_skimage:
        pytest.importorskip("astra" if peer is by_astra else "algotom")
    sinogram = make_sinogram(65, 90)
    inside = np.hypot(*(np.indices((65, 65)) - 32)) < INSIDE
    scale, apart = peers.agreement(ours(sinogram)()[inside], np.asarray(peer(sinogram)())[inside])
    assert scale == pytest.approx(1, abs=0.02)
    assert apart < 0.03


def test_a_peer_that_is_not_installed_is_left_out_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], turn: Turn
) -> None:
    def missing(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(peers, "version", missing)
    assert peers.rtk_backprojection(turn) is None
    said = capsys.readouterr().out.splitlines()
    assert said == ["itk-rtk is not installed, so nothing is compared with it: pip install 'bluesky-jit[bench]'"]
