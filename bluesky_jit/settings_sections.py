"""The sections of the settings: one class each, what can be set in it, and the defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, urlencode, urlsplit

from bluesky_jit.addresses import require_address, require_interface, require_key, require_uri

REGION_NUMBERS = {
    "cylinder": ("radius", "low end", "high end"),
    "box": ("x low", "y low", "z low", "x high", "y high", "z high"),
}
"""What the numbers of learn.region_mm are, for each kind of learn.region that takes any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GeometrySettings:
    """The set-up, for runs whose start document does not describe it."""

    kind: Literal["cone", "parallel"] = "cone"
    """The beam's shape."""
    pixel_mm: float | None = None
    """Detector pixel size."""
    source_axis_mm: float | None = None
    """From the source to the rotation axis; cone only."""
    source_detector_mm: float | None = None
    """From the source to the detector; cone only."""
    axis_offset_mm: float = 0.0
    """Lab x of the rotation axis, measured at the axis."""
    axis_tilt_rad: float = 0.0
    """The rotation axis' turn about lab x, its upper end towards the source (laminography)."""
    detector_u_mm: float = 0.0
    """How far the detector's centre lies, along its columns, from where the central ray hits it."""
    detector_v_mm: float = 0.0
    """The same along its rows."""
    detector_roll_rad: float = 0.0
    """The detector's turn about the beam, clockwise as the source sees it."""
    detector_pitch_rad: float = 0.0
    """The detector's turn about lab x, its upper edge towards the source."""
    detector_yaw_rad: float = 0.0
    """The detector's turn about lab z, its last column away from the source."""
    extended_field: bool = False
    """Whether the detector stands to one side and sees half of a wide sample; it takes a full turn."""
    calibration_file: str = ""
    """CSV file of shifts measured angle by angle: columns `angle_deg` or `angle_rad`, and any of `detector_u_mm`,
    `detector_v_mm`, `sample_x_mm`, `sample_y_mm`, `sample_z_mm`. Empty: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeSettings:
    """How frames reach the session."""

    queue_frames: int = 512
    """Most frames that came inside events and wait to be used; what does not fit is counted and reported."""
    file_patience_s: float = 5.0
    """How long after a run's end its frames may still appear in their file."""
    watchdog_s: float = 3600.0
    """A run of which nothing has come for so long is taken to have ended without saying so. Longer than a plan may wait
    for the beam: frames that come after it are left out."""
    pva: str = ""
    """PV of the camera's pvAccess image (NTNDArray): frames are taken from there as they are made, and from files what
    it lacks. Empty: the one that the run names (`pva` of its `tomo` block). `off`: none."""
    pva_angle: str = ""
    """Attribute of that image that holds the angle; empty: found by name (`Angle`, `SAMPLE_ROT`, `StreamTheta`, …)."""
    angle_key: str = ""
    """Data key of the angle; empty: as the run says, or found by name."""
    angle_unit: Literal["deg", "rad"] = "deg"
    """Unit of the angle when its data key gives none."""
    monitor_delay_s: float = 0.0
    """Added to a frame's time stamp before the angle of a monitored stage is looked up: how far the stage's clock is
    ahead of the detector's, less half the exposure where the stamp marks its end."""
    plans: tuple[str, ...] = ()
    """Names of plans whose runs are tomographies though neither their start document nor their streams say so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TomoSettings:
    """Reconstruction."""

    turns: float = 1.0
    """Turns of projections in the window: 1 or more, or what the run covers (half a turn in a parallel beam)."""
    window: Literal["sliding", "whole-turns"] = "sliding"
    """`sliding`: slices follow every projection. `whole-turns`: of whole windows only, which share no projection."""
    memory_gb: float | None = None
    """Most memory that the window may take; None: half of what is free when a run begins."""
    angles_per_turn: int | None = None
    """For runs whose start document does not say."""
    without_flats: Literal["stand-in", "wait"] = "stand-in"
    """What is done while a run has no flats. `stand-in`: the last ones of the same set-up are used, or an estimate from
    the projections of a turn, and it is said so. `wait`: there are no slices until flats come."""
    saturation_counts: int = 65535
    """Counts at which a pixel is full; 4095 for a camera of 12 bits."""
    filter: Literal["ram-lak", "shepp-logan", "cosine", "hann"] = "ram-lak"
    """Ramp filter; from left to right less noise and less detail."""
    filter_cutoff: float = 1.0
    """Highest frequency that the filter lets pass, as part of the detector's (Nyquist)."""
    zinger_threshold: float = 0.0
    """Excess over the pixels around, as part of the flat, from which on a pixel is a zinger; 0.1 suits most detectors.
    0: zingers stay."""
    air_columns: int = 0
    """Columns at each side of the detector that see no sample in any projection: the beam's drift is read there. 0: it
    is not corrected."""
    delta_beta: float = 0.0
    """δ/β of the sample's material for Paganin's phase retrieval, which smooths; a few 100 for light materials. 0: no
    phase retrieval."""
    energy_kev: float | None = None
    """Photon energy, for runs whose start document does not say; for phase retrieval, and to tell models of earlier
    runs apart."""
    propagation_mm: float | None = None
    """From the sample to the detector, for phase retrieval in a parallel beam; a cone's follows from its geometry."""
    hardening: tuple[float, ...] = ()
    """Coefficients c1, c2, … of c1·p + c2·p² + …, which takes measured line integrals p to those of one energy. Empty:
    they are right."""
    ring_width: int = 0
    """Pixels of the widest ring that is taken out, up to a fifth of the detector; 2 or 3 suit most. 0: rings stay."""
    axis: Literal["given", "estimate", "track"] = "given"
    """Rotation axis. `given`: where the run or `geometry.axis_offset_mm` says. `estimate`: moved once to where the
    projections show it, as soon as that is sure. `track`: moved after every turn."""
    kernel: Literal["auto", "cuda", "numba", "reference", "astra"] = "auto"
    """What backprojects; `auto`: `cuda` on a GPU that can, else `numba`. For checks, and far too slow for live use:
    `reference`, plain NumPy, exact, and `astra`, the ASTRA toolbox on a GPU."""
    workers: int | None = None
    """Most cores that one reconstruction takes at a time; None: all that the process may use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceSettings:
    """The slices that are shown and published."""

    voxel_mm: float | None = None
    """None: the pixel's size at the axis."""
    size: int | None = None
    """Points along each side; None: the field of view."""
    updates_per_s: float = 10.0
    """Most updates of the shown slices in a second."""
    preview_size: int = 32
    """Points along each side of the preview volume."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnSettings:
    """Just-in-time learning."""

    enabled: bool = True
    """Without learning there are raw slices only."""
    preset: str = "unet-fast"
    """A network and its recipe, or `auto`: several are tried, and the best goes on."""
    seed: int = 0
    """Of the weights, patches and batches."""
    batch: int = 32
    """Pairs in a training batch."""
    patch: int | None = None
    """Points along each side of a training patch; None: the preset's."""
    region: Literal["sample", "field", "cylinder", "box"] = "sample"
    """What patches are taken from. `sample`: an upright cylinder around the sample, looked for in the projections again
    and again. `field`: all that every projection sees. `cylinder`, `box`: as `learn.region_mm` says."""
    region_mm: tuple[float, ...] = ()
    """`cylinder`: its radius around the axis, its low and its high end; `box`: x, y and z of its lowest corner, then of
    its highest. Otherwise empty."""
    patches: Literal["mixed", "near", "whole"] = "mixed"
    """Where patches lie: near the slices on show, in the whole region, or mixed, a quarter in the whole region."""
    buffer: int = 640
    """Pairs kept for training. 0: each is trained on once, as it comes."""
    splits: int = 2
    """Parts that projections are dealt to in turn; each makes an image by itself. Of more than 2, a network learns to
    predict the mean of the others from one, which came out worse than 2."""
    frame_spacing: int = 60
    """Projections between the time frames of presets that look at several; a multiple of the number of splits."""
    unseen_every: int = 4
    """One window of projections in so many is kept from training until the network has been judged on it. 0: none."""
    registry: str = ""
    """Folder of models that earlier runs have learned, to start from and to add to; empty: start from nothing."""
    checkpoint_folder: str = ""
    """Folder for checkpoints of the training, one folder in it for each run; empty: none are written."""
    checkpoint_every_s: float = 60.0
    """Seconds between two checkpoints."""
    inference_memory_gb: float = 0.1
    """Memory for denoising a slice; what does not fit is denoised in tiles, with the same result. More was slower."""
    segment: bool = False
    """Whether to learn also which points of the XY slice belong to the denser of two classes, and to publish that as
    `Segmentation`; training then shares its time between two networks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpicsSettings:
    """Publishing as EPICS PVs."""

    enabled: bool = True
    """Whether there are PVs at all."""
    prefix: str = "JIT:"
    """Begins the name of every PV."""
    interface: str = "127.0.0.1"
    """Network address that the servers listen on; 0.0.0.0 is all of them."""
    ca_port: int = 5064
    """Port of the Channel Access server."""
    pva_port: int = 5075
    """Port of the pvAccess server."""
    controls: bool = True
    """Whether clients may write the controls."""

    def __post_init__(self) -> None:
        require_interface("epics.interface", self.interface)


@dataclass(frozen=True, slots=True, kw_only=True)
class TiledSettings:
    """Publishing as Tiled records."""

    uri: str = ""
    """Empty: no Tiled records."""
    api_key: str = field(default="", repr=False)
    """Key that may write; keep it in the environment or in a file that only you can read."""
    spill_directory: str = ""
    """Where records wait while the server is away; empty: a folder in the user's cache."""

    def __post_init__(self) -> None:
        if self.uri:
            require_uri("tiled.uri", self.uri)
        # Tiled prints addresses with the key in them; here it belongs where nobody shows it.
        parts = urlsplit(self.uri)
        query = parse_qsl(parts.query, keep_blank_values=True)
        keys = [value for name, value in query if name == "api_key"]
        if keys:
            rest = urlencode([(name, value) for name, value in query if name != "api_key"])
            object.__setattr__(self, "uri", parts._replace(query=rest).geturl())
            object.__setattr__(self, "api_key", keys[-1])
        # A line end comes along when a key is read from a file.
        object.__setattr__(self, "api_key", self.api_key.strip())
        require_key("tiled.api_key", self.api_key)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """Where `bluesky-jit serve` meets the RunEngine's documents."""

    publish_address: str = "127.0.0.1:5577"
    """RunEngine processes publish here."""
    subscribe_address: str = "127.0.0.1:5578"
    """Whoever else wants the documents listens here."""
    curve_folder: str = ""
    """Folder of the keys that `bluesky-jit keys` makes: documents are encrypted, and only holders of keys are heard.
    Needed for addresses that other machines reach. Empty: none."""
    kafka_servers: str = ""
    """Kafka's brokers, such as `host:9092,host2:9092`: documents are taken from there, too. Empty: no Kafka."""
    kafka_topics: tuple[str, ...] = ()
    """Topics that RunEngines publish to, with bluesky-kafka's Publisher."""
    kafka_group: str = ""
    """Consumer group. A named one goes on where it had stopped; empty: one of its own, which begins with what comes
    from now on."""
    kafka_config: str = ""
    """TOML file of further options for Kafka's client, such as `security.protocol` and `sasl.password`. Empty: none."""

    def __post_init__(self) -> None:
        require_address("serve.publish_address", self.publish_address)
        require_address("serve.subscribe_address", self.subscribe_address)


@dataclass(frozen=True, slots=True, kw_only=True)
class BeamlineSettings:
    """PV prefixes of the devices that a console makes."""

    camera: str = "SIM:DET:"
    """areaDetector's prefix, before `cam1:` and `HDF1:`."""
    pva: str = "Pva1:Image"
    """The camera's pvAccess image, after its prefix; plans tell it to the session. Empty: there is none."""
    stage: str = "SIM:ROT"
    """The rotation's motor record."""
    shutter: str = "SIM:SHUTTER"
    """An enum record with the states Closed and Open."""
    sample: str = "SIM:SAMPLE"
    """Moves the sample in and out of the beam; empty: there is no such positioner."""
    ca_port: int = 5064
    """Port where the IOCs' Channel Access is looked for on this machine."""
    pva_port: int = 5075
    """Port where the IOCs' pvAccess is looked for on this machine."""
    file_directory: str = ""
    """Folder that the camera's file plugin writes to, as the detector's machine sees it; empty: as its IOC has it."""

    def __post_init__(self) -> None:
        for name in ("camera", "stage", "shutter"):
            if not getattr(self, name).strip():
                raise ValueError(f"beamline.{name} is {getattr(self, name)!r}: give the prefix of its PVs")
