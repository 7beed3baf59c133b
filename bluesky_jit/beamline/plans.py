"""Plans for tomography: darks, flats, then projections while the stage turns, or step by step."""

# ophyd carries no types, so that its devices do not match bluesky's protocols for pyright.
# pyright: reportArgumentType=false

from __future__ import annotations

import logging
from typing import Any

from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp

from bluesky_jit.beamline.angles import Order
from bluesky_jit.beamline.camera import Acquisition, TomoCamera
from bluesky_jit.beamline.reads import forget_unanswered_reads
from bluesky_jit.beamline.recipe import Recipe
from bluesky_jit.beamline.series import Plan, Series, tolerant, unconnected
from bluesky_jit.beamline.shutter import SamplePositioner, Shutter
from bluesky_jit.beamline.stage import RotationStage
from bluesky_jit.intake.setup import tomo_block
from bluesky_jit.settings_sections import GeometrySettings

logger = logging.getLogger(__name__)


def tomo_scan(
    camera: TomoCamera,
    stage: RotationStage,
    shutter: Shutter,
    sample: SamplePositioner | None = None,
    *,
    turns: float = 1.0,
    angles_per_turn: int = 180,
    exposure_s: float = 0.02,
    period_s: float | None = None,
    darks: int = 10,
    flats: int = 10,
    flats_after: int = 0,
    order: Order = "sequential",
    geometry: GeometrySettings | None = None,
    energy_kev: float | None = None,
    dark_flat_uid: str | None = None,
    md: dict[str, Any] | None = None,
) -> Plan:
    """Take darks, flats and projections while the stage turns; it steps for the interlaced and golden orders.

    turns, angles_per_turn: 2.5 turns of 180 angles are 450 projections. period_s: time from frame to frame, when longer
    than the exposure. flats_after: flats once more at the end. dark_flat_uid: the run whose darks and flats apply, when
    this one takes none.
    """
    recipe = Recipe(
        turns=turns,
        angles_per_turn=angles_per_turn,
        exposure_s=exposure_s,
        period_s=period_s,
        darks=darks,
        flats=flats,
        flats_after=flats_after,
        order=order,
    )
    tomo = tomo_metadata(camera, stage, recipe, geometry, energy_kev=energy_kev, dark_flat_uid=dark_flat_uid)
    metadata = {"plan_name": "tomo_scan", "tomo": tomo, **(md or {})}
    turn = order == "sequential"
    return (yield from _tomography(camera, stage, shutter, sample, recipe, turn=turn, metadata=metadata))


def tomo_step_scan(
    camera: TomoCamera,
    stage: RotationStage,
    shutter: Shutter,
    sample: SamplePositioner | None = None,
    *,
    turns: float = 1.0,
    angles_per_turn: int = 90,
    exposure_s: float = 0.02,
    darks: int = 10,
    flats: int = 10,
    flats_after: int = 0,
    order: Order = "sequential",
    geometry: GeometrySettings | None = None,
    energy_kev: float | None = None,
    dark_flat_uid: str | None = None,
    md: dict[str, Any] | None = None,
) -> Plan:
    """Take darks, flats, and projections with the stage at rest: one event for each angle. It can be paused."""
    recipe = Recipe(
        turns=turns,
        angles_per_turn=angles_per_turn,
        exposure_s=exposure_s,
        period_s=None,
        darks=darks,
        flats=flats,
        flats_after=flats_after,
        order=order,
    )
    tomo = tomo_metadata(camera, stage, recipe, geometry, energy_kev=energy_kev, dark_flat_uid=dark_flat_uid)
    metadata = {"plan_name": "tomo_step_scan", "tomo": tomo, **(md or {})}
    return (yield from _tomography(camera, stage, shutter, sample, recipe, turn=False, metadata=metadata))


def tomo_metadata(
    camera: TomoCamera,
    stage: RotationStage,
    recipe: Recipe,
    geometry: GeometrySettings | None,
    *,
    energy_kev: float | None = None,
    dark_flat_uid: str | None = None,
) -> dict[str, Any]:
    """Return the start document's `tomo` block: how to reconstruct the run. None: not known, take it from settings."""
    return {
        **(tomo_block(geometry) if geometry else {}),
        "image_key": camera.name,
        "angle_key": camera.angle_key,
        "rotation_axis": stage.name,
        "energy_kev": energy_kev,
        "exposure_s": recipe.exposure_s,
        "n_angles_per_rotation": recipe.angles_per_turn,
        "scan_mode": recipe.order,
        "dark_flat_uid": dark_flat_uid,
        "pva": camera.pva or None,
    }


def _tomography(
    camera: TomoCamera,
    stage: RotationStage,
    shutter: Shutter,
    sample: SamplePositioner | None,
    recipe: Recipe,
    *,
    turn: bool,
    metadata: dict[str, Any],
) -> Plan:
    devices = [camera, stage, shutter, *([sample] if sample is not None else [])]
    forget_unanswered_reads(*devices)
    if turn:
        stage.check_turning(recipe.turning())
    if sample is None and (recipe.flats or recipe.flats_after):
        logger.warning("flats are taken with the sample where it is: the plan was given no positioner for it")
    metadata = {
        "detectors": [camera.name],
        "motors": [stage.name],
        "num_points": recipe.projections,
        "plan_args": recipe.to_metadata(),
        # While it turns, the stage's angle is with the frames, in the file, and not in events.
        "hints": {"dimensions": [[["time"] if turn else [stage.name], "primary"]]},
        **metadata,
    }
    series = Series(camera, exposure_s=recipe.exposure_s, period_s=recipe.period_s)

    def scan() -> Plan:
        if turn:
            # A turning stage cannot go back: a pause ends the run, and the clean-up below follows.
            yield from bps.clear_checkpoint()
        if recipe.darks:
            yield from bps.mv(shutter, "Closed")
            yield from series.take("darks", recipe.darks)
        if recipe.flats:
            yield from _without_sample(shutter, sample, series.take("flats", recipe.flats))
        yield from bps.mv(shutter, "Open")
        if turn:
            yield from _turning(stage, series, recipe)
        else:
            yield from _stepping(camera, stage, recipe)
        if recipe.flats_after:
            yield from _without_sample(shutter, sample, series.take("flats", recipe.flats_after))

    def put_back() -> Plan:
        # What ended the scan may have cost answers that the clean-up would wait for.
        forget_unanswered_reads(*devices)
        if gone := unconnected(devices):
            logger.error("%s cannot be made safe from here: no answer", gone)
        yield from tolerant(shutter, lambda: bps.mv(shutter, "Closed"))
        yield from tolerant(camera, series.end)
        yield from tolerant(stage, lambda: bps.complete(stage, group="rest", wait=True))
        if sample is not None:
            yield from tolerant(sample, lambda: bps.mv(sample, "In"))

    @bpp.stage_decorator([camera, stage])
    @bpp.run_decorator(md=metadata)
    def run() -> Plan:
        try:
            yield from bpp.finalize_wrapper(scan(), put_back)
        except Exception as error:
            if gone := unconnected(devices):
                raise ConnectionError(f"no answer from {gone}: start their IOC again, then repeat the scan") from error
            raise

    return (yield from run())


def _without_sample(shutter: Shutter, sample: SamplePositioner | None, take: Plan) -> Plan:
    if sample is not None:
        yield from bps.mv(sample, "Out")
    yield from bps.mv(shutter, "Open")
    yield from take
    if sample is not None:
        yield from bps.mv(sample, "In")


def _turning(stage: RotationStage, series: Series, recipe: Recipe) -> Plan:
    yield from series.prepare("primary", recipe.projections)
    # The camera may take longer from frame to frame than it was asked to; the stage keeps pace with it.
    period_s = yield from bps.rd(series.camera.cam.acquire_period)
    yield from bps.prepare(stage, recipe.turning(period_s), group="speed", wait=True)
    yield from bps.kickoff(stage, group="run-up", wait=True)
    yield from series.run(lambda: _require_turning(stage))
    yield from bps.complete(stage, group="rest", wait=True)


def _require_turning(stage: RotationStage) -> Plan:
    if (yield from bps.rd(stage.motor_done_move)):
        position = yield from bps.rd(stage)
        raise RuntimeError(
            f"{stage.name} came to rest at {position:.2f}° before all projections were taken: "
            "look for a limit or a stop from elsewhere, then repeat the scan"
        )


def _stepping(camera: TomoCamera, stage: RotationStage, recipe: Recipe) -> Plan:
    acquisition = Acquisition(frames=0, exposure_s=recipe.exposure_s, triggered=True, label="primary")
    yield from bps.prepare(camera, acquisition, group="prepare", wait=True)
    # After turning for long the stage stands many turns from zero: step in the turn that it is in.
    position = yield from bps.rd(stage)
    turn_deg = 360.0 * round(position / 360.0)
    for angle in recipe.angles_deg:
        yield from bps.checkpoint()
        yield from bps.mv(stage, turn_deg + float(angle))
        yield from bps.trigger_and_read([camera, stage], name="primary")
