"""What a model is, and where its file comes from: plain descriptions, standard library only."""

from dataclasses import dataclass, field

from hrnet_cli.schema import KeypointSchema, load_schema

CODECS = ("msra", "dark", "udp")
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
        sha256: Full hash (64 hex digits), or the published first 8.
        size_bytes: Length of the file where known.
        licence: Terms of the file, which are not those of this package.
        source: Where the figures and hashes were published.
        width: HRNet width; 0 for detectors.
        input_hw: Crop (height, width); (0, 0) for detectors and backbones.
        codec: Heatmap convention; empty for detectors and backbones.
        keypoint_schema: Name of a built-in schema; empty for detectors and backbones.
        published_ap: COCO AP (or the metric named in ``metric``) as published, 0 to 1, or None.
        metric: What ``published_ap`` counts, such as ``AP val2017, detector boxes 56.4``.
        aliases: Short names, such as ``hrnet-w32``.
    """

    name: str
    kind: str
    sha256: str
    licence: str
    source: str
    urls: tuple[str, ...] = ()
    file: str = ""
    size_bytes: int | None = None
    width: int = 0
    input_hw: tuple[int, int] = (0, 0)
    codec: str = ""
    keypoint_schema: str = ""
    published_ap: float | None = None
    metric: str = ""
    aliases: tuple[str, ...] = field(default=())

    def model_spec(self) -> ModelSpec:
        """Return the description of a ``pose`` entry's network."""
        return ModelSpec(
            name=self.name,
            width=self.width,
            input_hw=self.input_hw,
            codec=self.codec,
            schema=load_schema(self.keypoint_schema),
        )
