"""``<stem>.html`` of a video: a player with the poses over the picture, and plots of them.

The page needs nothing but a browser: a small copy of the video and all poses lie inside it, and a
script (``templates/video_report.js``) draws them.
"""

import os
import urllib.parse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template

import numpy as np

from hrnet_cli import page
from hrnet_cli.errors import InputError
from hrnet_cli.images import write_bytes_atomic
from hrnet_cli.palettes import PALETTES, SEVERAL, Color
from hrnet_cli.pose_arrays import (
    ANGLE_STEPS,
    SCORE_STEPS,
    STEPS,
    PoseArrays,
    collect,
    pack,
)
from hrnet_cli.schema import KeypointSchema
from hrnet_cli.structures import Frame, Poses
from hrnet_cli.video_proxy import Proxy, make_proxy

SCRIPTS = ("video_plots.js", "video_report.js")
# A person's place is the middle of the hips, or the pelvis in schemas that have one.
CENTRES = (("left_hip", "right_hip"), ("L_Hip", "R_Hip"), ("pelvis",), ("hip",))
# People the table names, those seen longest.
MOST_LISTED = 40


@dataclass(frozen=True)
class VideoReportInfo:
    """What a page says of the run beside its poses.

    Attributes:
        model: Name of the pose model.
        detector: Name of the person detector.
        command: The command that was run; may be empty.
        seconds: How long the video took to work through; None where unknown.
        damage: What was broken in the video, or went wrong with it, a sentence each.
        keypoint_threshold: Score below which a keypoint is not shown at first, and has no part in
            joint angles.
        facts: Name and value of further facts, such as the tracker or the smoothing.
        date: When, in words; may be empty.
    """

    model: str
    detector: str
    command: str = ""
    seconds: float | None = None
    damage: Sequence[str] = ()
    keypoint_threshold: float = 0.2
    facts: Sequence[tuple[str, str]] = field(default=())
    date: str = ""


def write_video_report(
    path: Path,
    records: Sequence[tuple[Frame, Poses]],
    video: Path,
    info: VideoReportInfo,
    *,
    pictures: Iterable[Frame] | None = None,
) -> None:
    """Write the page of a video, whole or not at all; an existing file is replaced.

    Args:
        path: The page's file.
        records: All frames in order with their poses; their pictures are not looked at.
        video: The original. The page links to it where it holds no copy of it.
        info: What else the page says.
        pictures: The same frames once more, with their pictures, for the copy inside the page;
            None for no copy.

    Raises:
        InputError: There is no record.
        OutputError: The file cannot be written.
    """
    if not records:
        raise InputError(
            f"'{video}' has no record, so that there is nothing to report",
            hint="a report needs at least one frame",
        )
    arrays = collect(records, threshold=info.keypoint_threshold)
    proxy = Proxy(reason="its pictures were not kept")
    if pictures is not None:
        proxy = make_proxy(pictures, arrays.indices_F.tolist(), arrays.times_F.tolist())
    html = video_page(arrays, proxy, link_to(video, path.parent), video.name, info)
    # Names that are not text (not UTF-8) are shown with a question mark.
    write_bytes_atomic(path, html.encode("utf-8", errors="replace"))


def link_to(video: Path, folder: Path) -> str:
    """Return the address of a file as seen from a page's folder; empty when it is no file."""
    if not video.is_file():
        return ""
    try:
        relative = os.path.relpath(video.resolve(), folder.resolve())
    except ValueError:  # another drive
        return video.resolve().as_uri()
    # "./" in front: a name with a colon is not the name of a protocol.
    return "./" + urllib.parse.quote(os.fsencode(relative.replace(os.sep, "/")))


def video_page(
    arrays: PoseArrays, proxy: Proxy, link: str, name: str, info: VideoReportInfo
) -> str:
    """Return the page of a video.

    Args:
        arrays: Its poses.
        proxy: The small copy of it, or why there is none.
        link: Address of the original; empty when there is none.
        name: Name of the video.
        info: What else the page says.
    """
    layout, data = pack(arrays)
    player = Template(page.template("video_report.html")).substitute(
        ratio=f"{arrays.size_wh[0]} / {arrays.size_wh[1]}",
        picture=_picture_words(proxy, link),
    )
    sections = [
        page.tiles(_tiles(arrays)),
        _damage(info),
        player,
        page.section("People", *_people(arrays)),
        page.section("The run", *_run(arrays, name, info)),
        page.data_block(
            "report", _facts_for_script(arrays, proxy, link, info) | {"layout": layout}
        ),
        page.bytes_block("poses", data),
        page.bytes_block("video-data", proxy.mp4),
    ]
    script = page.Script(
        "\n".join(page.template(name) for name in SCRIPTS),
        style=page.template("video_report.css"),
        # The copy is handed to the player as a blob; only a link may read a file.
        media="blob:" if proxy.mp4 else "'self' file:",
    )
    head = page.Heading("hrnet detect", name, _lead(arrays))
    footer = "Written by hrnet detect" + (f", {info.date}." if info.date else ".")
    return page.build_page(head, sections, footer, script=script)


def _facts_for_script(
    arrays: PoseArrays, proxy: Proxy, link: str, info: VideoReportInfo
) -> dict[str, object]:
    schema = arrays.schema
    sides = PALETTES["sides"](schema, schema.skeleton, 0)
    return {
        "size": arrays.size_wh,
        "keypoints": [name.replace("_", " ") for name in schema.keypoints],
        "limbs": schema.edges,
        "centre": _centre(schema),
        "colors": {
            "people": [_css(color) for color in SEVERAL],
            "limbs": [_css(color) for color in sides.limbs],
            "keypoints": [_css(color) for color in sides.keypoints],
        },
        "ids": arrays.ids,
        "angles": [name.replace("_", " ") for name in arrays.angle_names],
        "threshold": info.keypoint_threshold,
        "steps": {
            "pixels": max(arrays.size_wh) / STEPS, "score": SCORE_STEPS, "degrees": ANGLE_STEPS
        },
        "link": "" if proxy.mp4 else link,
    }  # fmt: skip


def _centre(schema: KeypointSchema) -> list[int]:
    """Return the keypoints whose middle is where a person is; none where only the box tells."""
    for names in CENTRES:
        if all(name in schema.index for name in names):
            return [schema.index[name] for name in names]
    return []


def _css(color: Color) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def _picture_words(proxy: Proxy, link: str) -> str:
    """Return what stands below the player about where its picture comes from."""
    if proxy.mp4:
        return "The picture is a small copy without sound inside this page."
    reason = f"The video is not inside this page: {escape(proxy.reason)}."
    if not link:
        return reason
    return f'{reason} The player reads <a href="{escape(link)}">the original</a> instead.'


def _lead(arrays: PoseArrays) -> str:
    frames, people = len(arrays.times_F), int(arrays.people_counts.max())
    width, height = arrays.size_wh
    crowd = {0: "nobody in them", 1: "one person at most"}.get(people, f"{people} people at most")
    plural = "frame" if frames == 1 else "frames"
    return f"{frames:,} {plural} of {width}x{height} pixels, {crowd}."


def _tracked(arrays: PoseArrays) -> bool:
    return bool(arrays.ids) and arrays.ids[0] is not None


def _tiles(arrays: PoseArrays) -> list[tuple[str, str, str]]:
    frames, people_F = len(arrays.times_F), arrays.people_counts
    told = arrays.confidences
    mean = float(np.nanmean(told)) if np.isfinite(told).any() else None
    empty = int((people_F == 0).sum())
    return [
        ("frames", f"{frames:,}", f"{empty:,} with nobody"),
        ("duration", page.duration(_length(arrays.times_F)), ""),
        ("people in a frame", f"{people_F.mean():.1f}", f"{int(people_F.max())} at most"),
        ("ids", f"{len(arrays.ids):,}" if _tracked(arrays) else page.NO_NUMBER,
         "" if _tracked(arrays) else "without tracking"),
        ("mean keypoint score", page.figure(mean, 2), ""),
    ]  # fmt: skip


def _length(times_F: np.ndarray) -> float:
    """Return seconds from the first frame to the end of the last, which lasts as the one before."""
    last = times_F[-1] - times_F[-2] if len(times_F) > 1 else 0.0
    return float(times_F[-1] - times_F[0] + last)


def _damage(info: VideoReportInfo) -> str:
    lines = "".join(f"<li>{escape(text)}</li>" for text in info.damage)
    title = "What went wrong"
    return page.section(title, f'<ul class="damage">{lines}</ul>') if lines else ""


def _people(arrays: PoseArrays) -> list[str]:
    if not _tracked(arrays):
        return []
    counts = np.bincount(arrays.tracks_R[arrays.tracks_R >= 0], minlength=len(arrays.ids))
    longest = sorted(np.argsort(-counts, kind="stable")[:MOST_LISTED].tolist())
    rows = [_person(arrays, track) for track in longest]
    rest = len(arrays.ids) - len(rows)
    return [
        page.table(["id", "frames", "from, s", "to, s", "mean keypoint score"], rows),
        page.note(f"The {MOST_LISTED} seen longest; {rest:,} more are left out.") if rest else "",
    ]


def _person(arrays: PoseArrays, track: int) -> list[str]:
    own = arrays.tracks_R == track
    frames, told = arrays.frames_R[own], arrays.confidences[own]
    mean = float(np.nanmean(told)) if np.isfinite(told).any() else None
    first, last = arrays.times_F[frames[0]], arrays.times_F[frames[-1]]
    texts = [str(arrays.ids[track]), f"{len(frames):,}", f"{first:.2f}", f"{last:.2f}"]
    return [*texts, page.figure(mean, 2)]


def _run(arrays: PoseArrays, name: str, info: VideoReportInfo) -> list[str]:
    width, height = arrays.size_wh
    schema = arrays.schema
    facts = [
        ("video", name),
        ("picture", f"{width}x{height} pixels"),
        ("first frame", f"{arrays.indices_F[0]:,}, at {arrays.times_F[0]:.3f} s"),
        ("last frame", f"{arrays.indices_F[-1]:,}, at {arrays.times_F[-1]:.3f} s"),
        ("model", info.model),
        ("keypoints", f"{schema.name}, {len(schema)}"),
        ("detector", info.detector),
        ("worked for", _speed(len(arrays.times_F), info.seconds)),
        *info.facts,
    ]
    again = [page.paragraph("Run it again:"), page.command(info.command)] if info.command else []
    return [page.facts(facts), *again]


def _speed(frames: int, seconds: float | None) -> str:
    if not seconds:
        return ""
    return f"{page.duration(seconds)}, {frames / seconds:.1f} frames a second"
