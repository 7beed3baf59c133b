"""Rehearsal: after it, a run meets no loop that is still to be compiled or loaded."""

import subprocess
import sys

REHEARSE_AND_RECONSTRUCT = """
import sys
from numba.core.dispatcher import Dispatcher
from bluesky_jit.tomo.geometry import ConeGeometry, ParallelGeometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.kernels import choose
from bluesky_jit.tomo.live import FilteredBackprojection
from bluesky_jit.tomo.rehearsal import rehearse
from tests.helpers.noise_run import flats, frames


def ready_loops():
    modules = [module for name, module in sys.modules.items() if name.startswith("bluesky_jit.tomo")]
    loops = {value for module in modules for value in vars(module).values() if isinstance(value, Dispatcher)}
    return {(loop.py_func.__module__, loop.py_func.__name__, str(known)) for loop in loops for known in loop.signatures}


kernel = choose("numba")
rehearse(kernel)
rehearsed = ready_loops()
for geometry in (
    ConeGeometry(n_u=24, n_v=20, pixel_mm=0.2, source_axis_mm=100, source_detector_mm=200),
    ParallelGeometry(n_u=24, n_v=20, pixel_mm=0.2),
):
    run = FilteredBackprojection(geometry, n_projections=20, kernel=kernel)
    run.push(flats(geometry))
    run.push(frames(geometry, range(20), per_turn=20))
    grids = tuple(
        make(0.0, voxel_mm=0.1, shape=(20, 20)) for make in (
            lambda at, **rest: Grid.slice_xy(z_mm=at, **rest),
            lambda at, **rest: Grid.slice_xz(y_mm=at, **rest),
            lambda at, **rest: Grid.slice_yz(x_mm=at, **rest),
        )
    )
    for first in (20, 22):
        run.slices(grids)
        run.pairs(grids)
        run.push(frames(geometry, range(first, first + 2), per_turn=20))
    run.slices((Grid.preview(geometry, 8),))
print(len(rehearsed), sorted(ready_loops() - rehearsed))
"""


def test_a_run_after_a_rehearsal_has_nothing_to_compile() -> None:
    done = subprocess.run(
        [sys.executable, "-c", REHEARSE_AND_RECONSTRUCT], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    count, _, late = done.stdout.strip().partition(" ")
    assert int(count) >= 5
    assert late == "[]"
