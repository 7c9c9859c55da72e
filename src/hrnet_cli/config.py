"""What a model is, and where its file comes from: plain descriptions, standard library only."""

import re
from dataclasses import dataclass, field

from hrnet_cli.errors import ConfigError
from hrnet_cli.schema import KeypointSchema, load_schema

# What pictures can show, and on what (see `draw.draw_poses`).
PARTS = ("keypoints", "skeleton", "boxes", "scores", "names", "ids", "heatmap")
# What the records of all photos of a run are called; those of a video have its own name.
PHOTOS_STEM = "poses"
BACKGROUNDS = ("photo", "black", "transparent")
CODECS = ("msra", "dark", "udp")
# The coarsest branch of an HRNet has this stride, so crops have such multiples as sides.
INPUT_MULTIPLE = 32
WEIGHTS_KINDS = ("pose", "backbone", "detector")
IMAGENET_MEAN_RGB = (0.485, 0.456, 0.406)
IMAGENET_STD_RGB = (0.229, 0.224, 0.225)
# Crops show 1.25 times the person box (official HRNet, lib/dataset/coco.py, _xywh2cs).
BOX_PADDING = 1.25


@dataclass(frozen=True)
class ModelSpec:
    """All that must be known of a network to feed it crops and read its heatmaps.

    Attributes:
        name: Name written into every record.
        width: Channels of the highest-resolution branch (32 for W32).
        input_hw: Crop (height, width) in pixels, both divisible by 32.
        codec: Heatmap convention it was trained with, one of `CODECS`; crop geometry, targets,
            flip merge and decoding all follow it.
        schema: Its keypoints.
        mean_rgb: Channel means of its input, for pixels scaled to 0..1.
        std_rgb: Channel standard deviations.
        box_padding: Factor by which a person box is enlarged to the crop.
    """

    name: str
    width: int
    input_hw: tuple[int, int]
    codec: str
    schema: KeypointSchema
    mean_rgb: tuple[float, float, float] = IMAGENET_MEAN_RGB
    std_rgb: tuple[float, float, float] = IMAGENET_STD_RGB
    box_padding: float = BOX_PADDING


@dataclass(frozen=True)
class WeightsEntry:
    """One file of ``weights.toml``.

    Attributes:
        name: Name on the command line, such as ``hrnet-w32-256x192-udp``.
        kind: ``pose``, ``backbone`` (ImageNet classification) or ``detector`` (YOLO).
        urls: Mirrors, tried in order; empty for a file that ships with the package.
        file: Path inside the package of a shipped file; empty for the others.
        filename: Name of the published file where the first URL does not end with it.
        sha256: Full hash (64 hex digits), or the published first 8.
        size_bytes: Length of the file where known.
        licence: Licence of the repository that releases the file, not of this package.
        trained_on: Data it learned from, whose terms bind its users too.
        source: Where the figures and hashes were published.
        width: HRNet width; 0 for detectors.
        input_hw: Crop (height, width); (0, 0) for detectors and backbones.
        codec: Heatmap convention; empty for detectors and backbones.
        keypoint_schema: Name of a built-in schema; empty for detectors and backbones.
        published_ap: COCO AP (or what ``metric`` names) as published, 0 to 1, or None.
        metric: What ``published_ap`` counts, such as ``AP val2017, detector boxes 56.4``.
        measured_ap: COCO AP measured by this project, 0 to 1, or None.
        measured_how: Photos, boxes and settings of ``measured_ap``.
        aliases: Short names, such as ``hrnet-w32``.

    Raises:
        ConfigError: Fields that contradict each other.
    """

    name: str
    kind: str
    sha256: str
    licence: str
    source: str
    urls: tuple[str, ...] = ()
    file: str = ""
    filename: str = ""
    size_bytes: int | None = None
    trained_on: str = ""
    width: int = 0
    input_hw: tuple[int, int] = (0, 0)
    codec: str = ""
    keypoint_schema: str = ""
    published_ap: float | None = None
    metric: str = ""
    measured_ap: float | None = None
    measured_how: str = ""
    aliases: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        """Check the fields against each other."""
        _check_origin(self)
        _check_network(self)
        for key, value, words in (
            ("published_ap", self.published_ap, self.metric),
            ("measured_ap", self.measured_ap, self.measured_how),
        ):
            if value is not None and (not 0 <= value <= 1 or not words):
                raise ConfigError(
                    f"weights '{self.name}': {key} is {value}, expected 0 to 1 and words that say"
                    " what it counts"
                )

    @property
    def file_name(self) -> str:
        """Return the name of the file, which it also has in the cache and on mirrors."""
        return self.filename or (self.file or self.urls[0]).rsplit("/", 1)[-1]

    def model_spec(self) -> ModelSpec:
        """Return the description of a ``pose`` entry's network."""
        return ModelSpec(
            name=self.name,
            width=self.width,
            input_hw=self.input_hw,
            codec=self.codec,
            schema=load_schema(self.keypoint_schema),
        )


def _check_origin(entry: WeightsEntry) -> None:
    where = f"weights '{entry.name}'"
    if not re.fullmatch(r"[0-9a-f]{8}|[0-9a-f]{64}", entry.sha256):
        raise ConfigError(
            f"{where}: sha256 is '{entry.sha256}', expected 64 lower-case hex digits or the first 8"
        )
    if bool(entry.file) == bool(entry.urls):
        raise ConfigError(f"{where}: expected either urls or the file inside the package")
    for url in entry.urls:
        if not re.match(r"https://|http://(localhost|127\.0\.0\.1)[:/]", url):
            raise ConfigError(f"{where}: url '{url}' does not start with https://")
    if not re.fullmatch(r"\w[\w.+-]*", entry.file_name):
        raise ConfigError(
            f"{where}: '{entry.file_name}' is not a plain file name",
            hint="give the published name as filename",
        )
    if entry.size_bytes is not None and entry.size_bytes <= 0:
        raise ConfigError(f"{where}: size_bytes is {entry.size_bytes}, expected more than 0")


def _check_network(entry: WeightsEntry) -> None:
    where = f"weights '{entry.name}'"
    if entry.kind not in WEIGHTS_KINDS:
        raise ConfigError(
            f"{where}: kind is '{entry.kind}', expected one of {', '.join(WEIGHTS_KINDS)}"
        )
    if (entry.width > 0) == (entry.kind == "detector"):
        raise ConfigError(f"{where}: width is {entry.width}, which does not fit a {entry.kind}")
    is_pose = entry.kind == "pose"
    for key in ("codec", "keypoint_schema"):
        if bool(getattr(entry, key)) != is_pose:
            raise ConfigError(f"{where}: {key} belongs to pose models, and they need it")
    if is_pose and entry.codec not in CODECS:
        raise ConfigError(f"{where}: codec is '{entry.codec}', expected one of {', '.join(CODECS)}")
    if is_pose and any(side <= 0 or side % INPUT_MULTIPLE for side in entry.input_hw):
        raise ConfigError(
            f"{where}: input_hw is {list(entry.input_hw)}, expected two multiples of 32"
        )


def part_stem(number: int, count: int) -> str:
    """Return what the records of the photos in one part of a divided run are called."""
    return f"{PHOTOS_STEM}.shard-{number}-of-{count}"
