"""Write the noise-free slices of a simulated sample: python -m sim_devices.truth REQUEST.json RESULT.npz.

The request holds "experiment", "seed", "radius_mm", "half_height_mm" and "slices": {name: {"grid": …, "time_s": …}},
its times in phantom time.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from bluesky_jit.tomo.grid import Grid
from sim_devices.phantom import experiment


def main(arguments: list[str] | None = None) -> None:
    """Read the request and write float32 (nz, ny, nx), in 1/mm, for every slice."""
    parser = argparse.ArgumentParser(prog="python -m sim_devices.truth", description=__doc__)
    parser.add_argument("request", type=Path)
    parser.add_argument("result", type=Path)
    options = parser.parse_args(arguments)
    request = json.loads(options.request.read_text())
    phantom = experiment(
        request["experiment"],
        seed=int(request["seed"]),
        radius_mm=float(request["radius_mm"]),
        half_height_mm=float(request["half_height_mm"]),
    )
    slices = {
        name: phantom.attenuation(Grid(**wanted["grid"]), float(wanted["time_s"]), oversample=2)
        for name, wanted in request["slices"].items()
    }
    np.savez(options.result, allow_pickle=False, **slices)


if __name__ == "__main__":
    main()
