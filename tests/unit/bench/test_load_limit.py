"""The load limit is measured on the loads that the kernel makes."""

import numpy as np

from bluesky_jit.bench import load_limit
from bluesky_jit.bench.load_limit import CONE, SHARED, TILE_VOXELS, figures, rows_of_tiles, shared_offsets


def test_all_loads_lie_in_their_slot_and_begin_where_the_first_angle_of_a_group_reads():
    slot_shape = (CONE.n_v + 2, CONE.n_u + 2)
    matrices = CONE.matrices(np.linspace(0, 6, 2 * SHARED + 1))
    for grid in rows_of_tiles().values():
        offsets, moves = shared_offsets(grid, matrices, slot_shape)
        assert offsets.shape == (16, 3, TILE_VOXELS)
        assert moves.shape == (16, len(matrices))
        assert not moves[:, ::SHARED].any()
        read = offsets[:, np.arange(len(matrices)) // SHARED] + moves[:, :, None]
        assert read.min() >= 0
        assert read.max() + slot_shape[1] + 1 < slot_shape[0] * slot_shape[1]
        # The tile's first voxel, at its corner.
        u, v, w = matrices[SHARED] @ [*grid.origin, 1]
        assert offsets[0, 1, 0] == int(v / w + 1) * slot_shape[1] + int(u / w + 1)


def test_the_kernel_is_told_beside_its_limit(monkeypatch):
    monkeypatch.setattr(load_limit, "N_ANGLES", 3)
    made = figures(repeats=1)
    assert [figure.name for figure in made] == [
        f"updates of one core, {name} slice" for name in ("horizontal", "upright", "oblique")
    ]
    for figure in made:
        assert figure.value > 0
        assert figure.peer is not None
        assert figure.note.endswith("of what the core loads with nothing else to do")
