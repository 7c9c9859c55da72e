"""Options that several commands share: same name, same words everywhere."""

from typing import Annotated

import typer

from hrnet_cli.errors import UsageError
from hrnet_cli.limits import MOST_THREADS

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="Pose model: a name of `hrnet download-weights --list`, or a weights file.",
        show_default="hrnet-w32; the starter model when it cannot be had",
    ),
]
InputOption = Annotated[
    str | None,
    typer.Option(
        "--input",
        help="Crop size HEIGHTxWIDTH in pixels of a weights file that does not say it.",
        metavar="HxW",
    ),
]
CodecOption = Annotated[
    str | None,
    typer.Option("--codec", help="Heatmap convention of such a file.", metavar="msra|dark|udp"),
]
SchemaOption = Annotated[
    str | None,
    typer.Option(
        "--keypoint-schema", help="Keypoints of such a file: coco17, mpii16, ... or a TOML file."
    ),
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="Where to compute: auto, cpu, cuda, cuda:1 or mps.")
]
BatchSizeOption = Annotated[
    int, typer.Option("--batch-size", min=1, help="People per pass through the network.")
]
FlipTestOption = Annotated[
    bool,
    typer.Option(
        "--flip-test/--no-flip-test",
        help="Average with the mirrored picture: more accurate, twice the time.",
    ),
]
RuntimeOption = Annotated[
    str,
    typer.Option(
        "--runtime",
        help="What computes the network: auto takes the fastest that gives PyTorch's numbers.",
        metavar="auto|torch|compiled|onnx|openvino|mnn",
    ),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="Arithmetic of the network; all but fp32 change the numbers a little, and are faster"
        " where the hardware has it.",
        metavar="fp32|bf16|fp16|int8",
        show_default="fp32; that of an exported file",
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        max=MOST_THREADS,
        help="Threads of the processor to compute with.",
        show_default="all it may use",
    ),
]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Never use the network.")]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Say nothing but warnings and errors.")
]


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Return (height, width) of a text such as ``256x192``, None for None.

    Raises:
        UsageError: It is not two multiples of 32.
    """
    if text is None:
        return None
    parts = text.lower().split("x")
    sizes = [int(part) for part in parts if part.isdecimal()]
    if not len(parts) == len(sizes) == 2 or any(size == 0 or size % 32 for size in sizes):
        raise UsageError(
            f"--input is '{text}', expected HEIGHTxWIDTH, both multiples of 32, such as 256x192"
        )
    return sizes[0], sizes[1]


def parse_list(text: str, option: str, allowed: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words of a comma-separated option, each once.

    Raises:
        UsageError: A word is not allowed, or there is none.
    """
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    unknown = [word for word in words if word not in allowed]
    if unknown or not words:
        raise UsageError(
            f"{option} is '{text}', expected one or more of {','.join(allowed)}",
            hint=_nearest(unknown, allowed),
        )
    return words


def check_choice(text: str, option: str, allowed: tuple[str, ...]) -> None:
    """Raise UsageError when an option is none of the allowed words."""
    if text not in allowed:
        raise UsageError(
            f"{option} is '{text}', expected one of {', '.join(allowed)}",
            hint=_nearest([text], allowed),
        )


def check_runtime(runtime: str, precision: str | None) -> None:
    """Raise UsageError when --runtime or --precision is not known or not installed."""
    from hrnet_cli.optional_packages import check_installed
    from hrnet_cli.runtimes import AUTO, PRECISIONS, RUNTIMES

    check_choice(runtime, "--runtime", (AUTO, *RUNTIMES))
    if precision is not None:
        check_choice(precision, "--precision", PRECISIONS)
    if runtime in RUNTIMES:
        for package in RUNTIMES[runtime].packages:
            check_installed(package, f"runtime {runtime}")


def _nearest(unknown: list[str], allowed: tuple[str, ...]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(unknown[0], allowed, n=1) if unknown else []
    return f"did you mean '{close[0]}'?" if close else ""
