"""Read the command line and start what it asks for."""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from bluesky_jit.beamline.environment import settings_file
from bluesky_jit.cli.found_settings import beneath
from bluesky_jit.settings import Settings, load_settings

BENCH_FAMILIES: dict[str, tuple[str, ...]] = {
    "live": (),
    "recon": (),
    "learning": ("cache",),
    "table1": (),
    "fig7": ("cache",),
    "fig8": ("cache",),
    "fig9": ("cache",),
    "fig10": ("cache", "jump"),
    "fig11": ("cache", "jump"),
    "tooth": ("data",),
    "soak": ("seconds",),
}
"""What can be measured, and which options it takes besides --quick and --output."""
SOURCE = (
    "a file (Data Exchange or NXtomo), or a run in Tiled (tiled.uri): its uid, the beginning of it, its scan id, or -1 "
    "for the last one"
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `bluesky-jit`."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    # Such as which kernel was chosen; other packages tell of their innards there.
    logging.getLogger("bluesky_jit").setLevel(logging.INFO)
    try:
        options.command(options)
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"bluesky-jit: {error}")
    except KeyboardInterrupt:
        sys.stderr.write("bluesky-jit: interrupted\n")
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bluesky-jit", description="Just-in-time learning for live X-ray tomography.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="show the whole mission on a simulated beamline, in about 90 seconds")
    demo.add_argument("--data", type=Path, help="folder for all that is written (default: jit-data/demo-<time>)")
    demo.add_argument("--turns", type=int, default=15, help="turns of the sample (default: %(default)s)")
    demo.add_argument("--keep", action="store_true", help="keep everything up at the end, until Ctrl-C")
    demo.set_defaults(command=_demo)

    sim = commands.add_parser("sim", help="start a simulated beamline (IOCs and Tiled) for use from a console")
    sim.add_argument("--data", type=Path, default=Path("jit-data"), help="folder for all that is written")
    sim.add_argument("ioc_options", nargs="*", help="after --: options of the simulated IOC, such as --experiment B")
    sim.set_defaults(command=_sim)

    serve = commands.add_parser("serve", help="reconstruct, learn and publish for RunEngines in other processes")
    _add_settings(serve)
    serve.set_defaults(command=_serve)

    keys = commands.add_parser("keys", help="make keys for documents between machines (serve.curve_folder)")
    keys.add_argument("folder", type=Path, help="where to put them")
    keys.set_defaults(command=_keys)

    doctor = commands.add_parser("doctor", help="look at everything that live slices need, and say what to do")
    doctor.add_argument("--json", action="store_true", help="for programs")
    _add_settings(doctor)
    doctor.set_defaults(command=_doctor)

    replay = commands.add_parser("replay", help="play a stored scan as if it were live, and see its slice denoised")
    replay.add_argument("source", help=f"{SOURCE}; or a folder of a FleX-ray scanner")
    replay.add_argument(
        "--rate",
        default="full",
        metavar="HZ|real|full",
        help="projections in a second, as their time stamps say, or as fast as they are taken (default: %(default)s)",
    )
    replay.add_argument("--turns", type=int, default=1, help="how often to play the projections (default: %(default)s)")
    replay.add_argument(
        "--to",
        default="session",
        metavar="session|serve|tiled|http://…",
        help="a session of its own, a running serve, the Tiled of the settings or another one (default: %(default)s)",
    )
    replay.add_argument(
        "--learn",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="how long at most a session of its own learns after the last projection: until it is ready and improves "
        "no more; 0: not at all (default: %(default)s)",
    )
    replay.add_argument(
        "--output", type=Path, metavar="FOLDER", help="for pictures and figures (default: jit-data/replay-<time>)"
    )
    _add_settings(replay)
    replay.set_defaults(command=_replay)

    volume = commands.add_parser("reconstruct", help="reconstruct the whole volume of a file or of a recorded run")
    volume.add_argument("source", help=f"{SOURCE}; or a folder of a FleX-ray scanner")
    volume.add_argument("output", type=Path, help="what to write: a name that ends in .zarr, .h5 or .tif")
    volume.add_argument(
        "--heights",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="lowest and highest plane in mm, 0 the middle",
    )
    _add_settings(volume)
    volume.set_defaults(command=_reconstruct)

    bench = commands.add_parser("bench", help="measure, and write docs/benchmarks")
    bench.add_argument("family", choices=tuple(BENCH_FAMILIES))
    bench.add_argument("--quick", action="store_true", help="a short pass that shows that it works")
    bench.add_argument("--output", type=Path, default=Path("docs/benchmarks"), help="folder for figures and plots")
    bench.add_argument(
        "--cache", type=Path, help="where learning keeps recordings and curves (default: jit-data/bench)"
    )
    bench.add_argument("--jump", type=float, metavar="SECONDS", help="fig10, fig11: when patches move (default: 60)")
    bench.add_argument("--data", type=Path, metavar="FILE", help="tooth: the scan (default: BLUESKY_JIT_TOOTH)")
    bench.add_argument("--seconds", type=float, help="soak: how long (default: 600)")
    bench.set_defaults(command=_bench)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--settings", type=Path, help="TOML file (default: BLUESKY_JIT_SETTINGS, or jit-data/settings.toml if there)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="one setting, such as learn.preset=fast"
    )


def settings_of(options: argparse.Namespace, defaults: Mapping[str, Mapping[str, Any]] | None = None) -> Settings:
    """Return the settings that a command line asks for; defaults: take the place of the usual ones."""
    found = None if options.settings else settings_file()
    if found and defaults:
        found, defaults = None, beneath(found, defaults)
    loaded = load_settings(options.settings or found, defaults=defaults)
    return loaded.changed(changes_of(options.set), origin="--set")


def changes_of(texts: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return what some --set ask for, by section and key."""
    changes: dict[str, dict[str, str]] = {}
    for text in texts:
        place, separator, value = text.partition("=")
        section, dot, key = place.partition(".")
        if not separator or not dot:
            raise ValueError(f"--set {text}: write SECTION.KEY=VALUE, such as learn.preset=fast")
        changes.setdefault(section, {})[key] = value
    return changes


def _demo(options: argparse.Namespace) -> None:
    from bluesky_jit.cli.demo import demo

    if options.turns < 1:
        raise ValueError(f"--turns is {options.turns}: give at least 1")
    sys.exit(demo(options.data, turns=options.turns, keep=options.keep))


def _doctor(options: argparse.Namespace) -> None:
    from bluesky_jit.cli.doctor import doctor

    sys.exit(doctor(options.settings or settings_file(), changes_of(options.set), as_json=options.json))


def _sim(options: argparse.Namespace) -> None:
    from bluesky_jit.cli.sim import sim

    sim(options.data, tuple(options.ioc_options))


def _serve(options: argparse.Namespace) -> None:
    from bluesky_jit.cli.serve import serve

    serve(settings_of(options))


def _keys(options: argparse.Namespace) -> None:
    from bluesky_jit.intake.curve import make_keys

    make_keys(options.folder)
    sys.stdout.write(f"made: set serve.curve_folder to {options.folder.resolve()}\n")


def _replay(options: argparse.Namespace) -> None:
    from bluesky_jit.cli.replay import Play, replay_source

    play = Play(rate=_rate(options.rate), turns=options.turns, to=options.to, learn_s=options.learn)
    replay_source(options.source, partial(settings_of, options), play, output=options.output)


def _rate(text: str) -> float | Literal["real", "full"]:
    if text == "real" or text == "full":
        return text
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 < rate < math.inf:
        raise ValueError(f"--rate is {text}: give projections in a second, above 0, or 'real' or 'full'")
    return rate


def _reconstruct(options: argparse.Namespace) -> None:
    from bluesky_jit.cli.reconstruct import reconstruct_source

    heights = tuple(options.heights) if options.heights else None
    reconstruct_source(options.source, options.output, partial(settings_of, options), heights_mm=heights)


def _bench(options: argparse.Namespace) -> None:
    from importlib import import_module

    given = {name: getattr(options, name) for name in ("cache", "jump", "data", "seconds")}
    given = {name: value for name, value in given.items() if value is not None}
    for name in given:
        if name not in BENCH_FAMILIES[options.family]:
            raise ValueError(f"bench {options.family} takes no --{name}: leave it out")
    module = import_module(f"bluesky_jit.bench.{options.family}")
    module.run(options.output, quick=options.quick, **given)
