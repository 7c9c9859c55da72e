import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
import zlib
from dataclasses import replace
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path

import av
import numpy as np
import pytest

from builders import make_frame, make_poses
from hrnet_cli import page, pose_arrays, structures, video_proxy
from hrnet_cli.angles import joint_angles
from hrnet_cli.draw import DrawStyle
from hrnet_cli.errors import InputError, OutputError
from hrnet_cli.pose_arrays import collect, pack
from hrnet_cli.schema import KeypointSchema, load_schema
from hrnet_cli.structures import Boxes, Poses
from hrnet_cli.video_report import VideoReportInfo, link_to, write_video_report

INFO = VideoReportInfo("hrnet-w32", "yolo26s", command="hrnet detect match.mp4 --track")
VIDEO = Path("match.mp4")
EMPTY_TAGS = ("meta", "link", "img", "wbr", "br", "input")
# Uneven, as of a phone: in seconds.
TIMES = (0.0, 0.04, 0.05, 0.2, 0.233367)


class Reader(HTMLParser):
    """Reads a page: checks that tags close in order, keeps texts, elements and script contents."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.words, self.scripts, self.policy = [], [], "", [], ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        if tag not in EMPTY_TAGS:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append([attributes, ""])
        if attributes.get("http-equiv") == "Content-Security-Policy":
            self.policy = attributes["content"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1][1] += data
        elif "style" not in self.open:
            self.words += data

    def block(self, name):
        return next(text for attributes, text in self.scripts if attributes.get("id") == name)

    @property
    def code(self):
        (code,) = [text for attributes, text in self.scripts if "type" not in attributes]
        return code

    @property
    def facts(self):
        return json.loads(self.block("report"))

    @property
    def mp4(self):
        return base64.b64decode(self.block("video-data"), validate=True)

    @property
    def arrays(self):
        return unpack(self.facts["layout"], base64.b64decode(self.block("poses"), validate=True))


def unpack(layout, packed):
    """Return the arrays by name, undoing what `pack` documents."""
    data = zlib.decompress(packed)
    arrays = {}
    for entry in layout:
        kind = np.dtype("<" + entry["type"])
        assert entry["offset"] % 8 == 0
        array = np.frombuffer(data, kind, entry["length"], entry["offset"]).copy()
        if "row" in entry:
            rows = array.reshape(-1, entry["row"]) if entry["row"] else array.reshape(0, 1)
            array = np.cumsum(rows, axis=0, dtype=kind).ravel()
        if "base" in entry:
            array += arrays[entry["base"]]
        arrays[entry["name"]] = array
    return arrays


def make_records(people=(2, 2, 2, 2, 2), ids=True, size_wh=(64, 48), **fields):
    """Return a record for each number of people, at `TIMES`; people walk a pixel a frame."""
    records = []
    for index, count in enumerate(people):
        poses = make_poses(count)
        numbers = np.arange(7, 7 + count) if ids else None
        moved_NK2 = poses.keypoints_NK2 + np.float32(index)
        poses = replace(poses, keypoints_NK2=moved_NK2, track_ids_N=numbers, **fields)
        frame = make_frame("match.mp4", width=size_wh[0], height=size_wh[1])
        records.append((replace(frame, index=index, time_s=TIMES[index]), poses))
    return records


def make_pictures(indices, size_wh=(64, 48)):
    """Return frames whose brightness tells their number."""
    width, height = size_wh
    return [
        structures.Frame(np.full((height, width, 3), 20 + 10 * index, np.uint8), "v", index=index)
        for index in indices
    ]


def write(folder, records, video=VIDEO, info=INFO, **options):
    path = folder / "match.html"
    write_video_report(path, records, video, info, **options)
    return Reader(path.read_text(encoding="utf-8"))


def decoded(mp4):
    with av.open(io.BytesIO(mp4)) as container:
        frames = list(container.decode(video=0))
    return [frame.time for frame in frames], [frame.to_ndarray(format="rgb24") for frame in frames]


# --- the page -------------------------------------------------------------------------------------


def test_page_needs_no_network_and_runs_its_own_script_alone(tmp_path):
    read = write(tmp_path, make_records(), pictures=make_pictures(range(5)))
    digest = base64.b64encode(hashlib.sha256(read.code.encode()).digest()).decode()
    assert read.policy == (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:;"
        f" script-src 'sha256-{digest}'; media-src blob:; base-uri 'none'; form-action 'none'"
    )
    for _, attributes in read.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("href", "data:").startswith("data:")
        assert "src" not in attributes
    types = [attributes.get("type") for attributes, _ in read.scripts]
    assert types == ["application/json", *["application/octet-stream"] * 2, None]


def test_pages_without_a_script_allow_none():
    read = Reader(page.build_page(page.Heading("a", "b", "c"), [], "d"))
    assert read.policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert read.scripts == []


def test_every_element_the_script_asks_for_is_there(tmp_path):
    read = write(tmp_path, make_records())
    ids = {attributes["id"] for _, attributes in read.tags if "id" in attributes}
    asked = set(re.findall(r'byId\("([\w-]+)"\)', read.code))
    asked |= {f"show-{name}" for name in ("skeleton", "boxes", "ids", "picture")}
    assert len(asked) > 20
    assert asked <= ids


def test_script_and_arrays_agree_on_what_numbers_mean():
    code = page.template("video_report.js")
    told = dict(re.findall(r"\b([A-Z_0-9]+) = (-?[\d.e-]+)[,;]", code))
    assert int(told["NONE_16"]) == pose_arrays.NONE_16
    assert int(told["NONE_8"]) == pose_arrays.NONE_8
    assert int(told["FILLED"]) == structures.FILLED
    assert float(told["SURE"]) == DrawStyle().sure_threshold
    assert float(told["SLACK"]) < pose_arrays.LEAST_STEP_S / 2


def test_words_from_outside_cannot_become_html_or_end_the_data(tmp_path):
    evil = "</script><img src=x onerror=alert(1)>&\"'"
    schema = KeypointSchema(evil, (evil, "b"), ((evil, "b"),))
    info = VideoReportInfo(evil, evil, evil, damage=[evil], facts=[(evil, evil)], date=evil)
    records = [(make_frame("v", time_s=0.0), make_poses(1, schema))]
    video = tmp_path / evil.replace("/", "|")
    video.write_bytes(b"no video")
    read = write(tmp_path, records, video, info)
    assert read.facts["keypoints"] == [evil, "b"]
    assert not [attributes for tag, attributes in read.tags if tag == "img"]
    assert read.words.count(evil) == 8
    assert read.words.count(video.name) == 3
    assert "'" not in read.facts["link"]


def test_summary_tells_the_run(tmp_path):
    info = replace(
        INFO, seconds=2.0, damage=["3 packets could not be decoded."], date="2025-11-25",
        facts=[("tracking", "on")],
    )  # fmt: skip
    read = write(tmp_path, make_records((2, 0, 1, 1, 1)), info=info)
    words = " ".join(read.words.split())
    for text in (
        "5 frames of 64x48 pixels, 2 people at most.", "frames51 with nobody", "duration0.3 s",
        "people in a frame1.02 at most", "ids2", "mean keypoint score0.50",
        "What went wrong 3 packets could not be decoded.", "modelhrnet-w32", "detectoryolo26s",
        "keypointscoco17, 17", "first frame0, at 0.000 s", "last frame4, at 0.233 s",
        "worked for2.0 s, 2.5 frames a second", "trackingon", "hrnet detect match.mp4 --track",
        "Written by hrnet detect, 2025-11-25.",
    ):  # fmt: skip
        assert text in words
    # id, frames, from, to, mean score
    assert "740.000.230.50" in words
    assert "810.000.000.50" in words


def test_people_table_names_those_seen_longest(tmp_path):
    poses = make_poses(50, track_ids_N=np.arange(50))
    records = [
        (make_frame("v", index=0, time_s=0.0), poses),
        (make_frame("v", index=1, time_s=0.1), make_poses(1, track_ids_N=np.array([49]))),
    ]
    read = write(tmp_path, records)
    assert "The 40 seen longest; 10 more are left out." in read.words
    heads = [attributes.get("scope") for tag, attributes in read.tags if tag == "th"]
    assert heads.count("row") == 40 + 7  # and the facts of the run
    assert "4920.000.100.50" in " ".join(read.words.split())


def test_page_is_written_whole_or_not_at_all(tmp_path):
    write(tmp_path, make_records())
    assert [path.name for path in tmp_path.iterdir()] == ["match.html"]
    with pytest.raises(OutputError, match="cannot write"):
        write_video_report(tmp_path / "match.html" / "a.html", make_records(), VIDEO, INFO)


def test_no_record_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"'match.mp4' has no record") as caught:
        write(tmp_path, [])
    assert caught.value.hint == "a report needs at least one frame"


# --- the poses ------------------------------------------------------------------------------------


def test_poses_come_back_as_they_were(tmp_path):
    raw_NK2 = make_poses(2).keypoints_NK2 + np.float32(0.25)
    flags_NK = np.zeros((2, 17), np.uint8)
    flags_NK[1, 3] = structures.FILLED
    scores_NK = np.linspace(0, 1.1, 34, dtype=np.float32).reshape(2, 17)
    records = make_records(raw_keypoints_NK2=raw_NK2, flags_NK=flags_NK, scores_NK=scores_NK)
    read = write(tmp_path, records)
    arrays, steps = read.arrays, read.facts["steps"]
    assert arrays["times"].tolist() == list(TIMES)
    assert arrays["indices"].tolist() == [0, 1, 2, 3, 4]
    assert read.facts["ids"] == [7, 8]
    # Sorted by person, then by frame.
    assert arrays["tracks"].tolist() == [0] * 5 + [1] * 5
    assert arrays["frames"].tolist() == [0, 1, 2, 3, 4] * 2
    half = steps["pixels"] / 2 + 1e-9
    assert half < 0.01
    for row in range(10):
        track, (_, poses) = row // 5, records[row % 5]
        for name, expected in (
            ("xy", poses.keypoints_NK2), ("raw", raw_NK2), ("boxes", poses.boxes.xyxy_N4)
        ):  # fmt: skip
            own = arrays[name].reshape(10, -1)[row] * steps["pixels"]
            assert np.abs(own - expected[track].ravel()).max() <= half
        own = arrays["scores"].reshape(10, 17)[row] / steps["score"]
        assert np.abs(own - scores_NK[track]).max() <= 0.5 / steps["score"] + 1e-6
        mean = arrays["confidence"][row] / steps["score"]
        assert mean == pytest.approx(scores_NK[track].mean(), abs=0.5 / steps["score"])
        assert (arrays["flags"].reshape(10, 17)[row] == flags_NK[track]).all()


def test_what_is_no_number_or_far_outside_is_nowhere(tmp_path):
    keypoints_NK2 = make_poses(1).keypoints_NK2.copy()
    keypoints_NK2[0, 2] = np.nan
    keypoints_NK2[0, 5] = (1e9, 3)
    boxes = Boxes(np.full((1, 4), np.nan), np.ones(1))
    poses = make_poses(1, keypoints_NK2=keypoints_NK2, boxes=boxes)
    read = write(tmp_path, [(make_frame("v", time_s=0.0), poses)])
    xy = read.arrays["xy"].reshape(17, 2)
    assert xy[2].tolist() == [pose_arrays.NONE_16] * 2
    assert xy[5, 0] == pose_arrays.NONE_16
    assert read.arrays["boxes"].tolist() == [pose_arrays.NONE_16] * 4
    assert read.arrays["scores"][2] == pose_arrays.NONE_8
    assert read.arrays["confidence"][0] == 100


@pytest.mark.parametrize(
    ("people", "ids", "expected"),
    [
        ((0, 0), False, []), ((0, 0), True, []), ((1, 0), False, [None]), ((1, 1), True, [7]),
        ((2, 1), False, []), ((2, 1), True, [7, 8]),
    ],
)  # fmt: skip
def test_identities(people, ids, expected, tmp_path):
    read = write(tmp_path, make_records(people, ids=ids))
    assert read.facts["ids"] == expected
    told = set(read.arrays["tracks"].tolist())
    assert told == ({-1} if sum(people) and not expected else set(range(len(expected))))
    assert ("without tracking" in read.words) is (not expected or expected == [None])


def test_some_people_may_have_no_identity(tmp_path):
    poses = make_poses(3, track_ids_N=np.array([5, -1, 2]))
    read = write(tmp_path, [(make_frame("v", time_s=0.0), poses)])
    assert read.facts["ids"] == [2, 5]
    assert read.arrays["tracks"].tolist() == [-1, 0, 1]


def test_nobody_and_one_frame_are_ordinary(tmp_path):
    read = write(tmp_path, make_records((0,)), pictures=make_pictures([0]))
    assert "1 frame of 64x48 pixels, nobody in them." in read.words
    assert all(len(array) == 0 for name, array in read.arrays.items() if name == "xy")
    assert decoded(read.mp4)[0] == [0.0]


def test_times_that_are_missing_or_stand_still_are_made_to_rise():
    records = [
        (make_frame("v", index=index, time_s=time), make_poses(0))
        for index, time in enumerate([None, 0.5, 0.5, 0.4, 0.7])
    ]
    times = collect(records, threshold=0.2).times_F
    assert np.allclose(times, [0, 0.5, 0.5001, 0.5002, 0.7], atol=1e-9)


def test_long_videos_stay_a_few_megabytes():
    rng = np.random.default_rng(0)
    records = []
    for index in range(1000):
        moved = 3.0 * index % 1500 + rng.normal(0, 1, (3, 17, 2))
        poses = make_poses(
            3,
            keypoints_NK2=make_poses(3).keypoints_NK2 + moved,
            scores_NK=rng.uniform(0.3, 0.95, (3, 17)),
            track_ids_N=np.arange(3),
        )
        frame = make_frame("v", width=1920, height=1080, index=index, time_s=index / 30)
        picture = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), frame.image_HW3.shape)
        records.append((replace(frame, image_HW3=picture), poses))
    _, data = pack(collect(records, threshold=0.2))
    # As base64, of 20,000 frames: below 6 MB.
    assert len(data) * 4 / 3 * 20 < 6e6


def test_sides_and_people_have_the_colours_of_the_drawings(tmp_path):
    facts = write(tmp_path, make_records()).facts
    assert facts["colors"]["people"][0] == "#56b4e9"
    schema = load_schema("coco17")
    assert facts["limbs"] == [list(edge) for edge in schema.edges]
    assert facts["colors"]["keypoints"][schema.index["left_wrist"]] == "#56b4e9"
    assert facts["colors"]["keypoints"][schema.index["right_wrist"]] == "#e68200"
    assert facts["centre"] == [11, 12]


@pytest.mark.parametrize(
    ("schema", "centre"),
    [
        ("mpii16", ["left_hip", "right_hip"]), ("hand21", []), ("ap10k", ["L_Hip", "R_Hip"]),
        ("wholebody133", ["left_hip", "right_hip"]),
    ],
)  # fmt: skip
def test_a_person_is_where_the_hips_are(schema, centre, tmp_path):
    read = write(tmp_path, [(make_frame("v", time_s=0.0), make_poses(1, schema))])
    assert [load_schema(schema).keypoints[at] for at in read.facts["centre"]] == centre


# --- joint angles ---------------------------------------------------------------------------------


def test_angles_in_the_page_are_those_that_anybody_has(tmp_path):
    read = write(tmp_path, make_records((1, 1)))
    assert "left elbow flexion" in read.facts["angles"]
    rows = read.arrays["degrees"].reshape(2, -1) / read.facts["steps"]["degrees"]
    _, poses = make_records((1,))[0]
    own = joint_angles(poses.keypoints_NK2, poses.scores_NK, poses.schema, threshold=0.2)
    assert np.abs(rows[0] - own[0][np.isfinite(own[0])]).max() <= 0.05
    hand = write(tmp_path, [(make_frame("v", time_s=0.0), make_poses(1, "hand21"))])
    assert hand.facts["angles"] == []


# --- the copy of the video ------------------------------------------------------------------------


def test_copy_has_a_frame_for_each_record_at_its_time(tmp_path):
    read = write(tmp_path, make_records(), pictures=make_pictures(range(5)))
    times, pictures = decoded(read.mp4)
    assert np.allclose(times, TIMES, atol=1 / 90_000)
    assert times[0] == 0
    # 10 apart in brightness; H.264 keeps even grey to a few steps.
    assert [round((picture.mean() - 20) / 10) for picture in pictures] == [0, 1, 2, 3, 4]
    with av.open(io.BytesIO(read.mp4)) as container:
        (stream,) = container.streams
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert not stream.codec_context.has_b_frames
    assert "a small copy without sound inside this page" in read.words
    assert read.facts["link"] == ""


def test_copy_begins_with_the_first_record():
    proxy = video_proxy.make_proxy(make_pictures([10, 12]), [10, 12], [5.0, 5.5])
    assert decoded(proxy.mp4)[0] == [0, 0.5]


@pytest.mark.parametrize(
    ("pictures", "records", "shown"),
    [
        (range(6), [1, 3, 5], [1, 3, 5]),  # every second frame, from the second on
        ([0, 2], [0, 1, 2], [0, 0, 2]),  # a picture that is missing
        ([0, 1], [0, 1, 2, 3], [0, 1, 1, 1]),  # and at the end
        ([2, 3], [1, 2, 3], [2, 2, 3]),  # and at the beginning
        (range(9), [0, 1], [0, 1]),  # more than was wanted
    ],
)
def test_pictures_go_to_their_records(pictures, records, shown):
    times = [0.1 * index for index in records]
    proxy = video_proxy.make_proxy(make_pictures(pictures), records, times)
    assert [round((p.mean() - 20) / 10) for p in decoded(proxy.mp4)[1]] == shown


@pytest.mark.parametrize(
    ("size_wh", "expected"),
    [
        ((64, 48), (64, 48)), ((1920, 1080), (640, 360)), ((1080, 1920), (360, 640)),
        ((101, 77), (100, 76)), ((1, 1), (16, 16)), ((3000, 3), (640, 16)),
    ],
)  # fmt: skip
def test_copy_is_small_and_even(size_wh, expected):
    proxy = video_proxy.make_proxy(make_pictures([0, 1], size_wh), [0, 1], [0.0, 0.1])
    assert [(p.shape[1], p.shape[0]) for p in decoded(proxy.mp4)[1]] == [expected] * 2


def test_frames_of_another_size_are_brought_to_the_first_one(tmp_path):
    pictures = make_pictures([0]) + make_pictures([1], (20, 90))
    read = write(tmp_path, make_records((1, 1)), pictures=pictures)
    assert [picture.shape for picture in decoded(read.mp4)[1]] == [(48, 64, 3)] * 2


def broken_pictures():
    yield from make_pictures([0])
    raise InputError("'match.mp4' cannot be opened <any> more")


@pytest.mark.parametrize(
    ("setting", "value", "pictures", "reason"),
    [
        ("MOST_SECONDS", 0.1, make_pictures(range(5)), "it is longer than 0.00166667 minutes"),
        ("MOST_BYTES", 500, make_pictures(range(5)), "its small copy is larger than 0.0005 MB"),
        ("MOST_BYTES", 10**9, broken_pictures(), "it could not be read again: 'match.mp4' cannot"
         " be opened <any> more"),
        ("MOST_BYTES", 10**9, [], "no picture of it could be read again"),
        ("MOST_BYTES", 10**9, None, "its pictures were not kept"),
    ],
)  # fmt: skip
def test_without_a_copy_the_page_links_to_the_original(
    setting, value, pictures, reason, tmp_path, monkeypatch
):
    monkeypatch.setattr(video_proxy, setting, value)
    (tmp_path / "in").mkdir()
    video = tmp_path / "in" / "my 100%.mp4"
    video.write_bytes(b"no video")
    (tmp_path / "out").mkdir()
    read = write(tmp_path / "out", make_records(), video, pictures=pictures)
    assert read.mp4 == b""
    assert read.facts["link"] == "./../in/my%20100%25.mp4"
    assert f"The video is not inside this page: {reason}." in read.words
    assert ("a", {"href": "./../in/my%20100%25.mp4"}) in read.tags
    assert "media-src 'self' file:;" in read.policy


def test_without_h264_the_page_links_to_the_original(tmp_path, monkeypatch):
    def unknown(name, mode):
        raise video_proxy.UnknownCodecError(name)

    monkeypatch.setattr(video_proxy, "Codec", unknown)
    read = write(tmp_path, make_records(), pictures=make_pictures(range(5)))
    assert "this installation of PyAV cannot write H.264" in read.words
    assert read.facts["link"] == ""  # there is no such file here


def test_encoding_ends_when_the_copy_gets_too_large(monkeypatch):
    monkeypatch.setattr(video_proxy, "MOST_BYTES", 20_000)
    rng = np.random.default_rng(0)
    given = []

    def pictures():
        for index in range(400):
            given.append(index)
            noise = rng.integers(0, 256, (96, 128, 3)).astype(np.uint8)
            yield structures.Frame(noise, "v", index=index)

    proxy = video_proxy.make_proxy(pictures(), range(400), [index / 25 for index in range(400)])
    assert proxy.reason == "its small copy is larger than 0.02 MB"
    assert len(given) < 200


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a b.mp4", "./a%20b.mp4"), ("c:d.mp4", "./c%3Ad.mp4"), ("ü.mp4", "./%C3%BC.mp4")],
)
def test_links_to_files(name, expected, tmp_path):
    (tmp_path / name).write_bytes(b"")
    assert link_to(tmp_path / name, tmp_path) == expected
    assert link_to(tmp_path / "gone.mp4", tmp_path) == ""
    assert link_to(Path("camera:0"), tmp_path) == ""


def test_ticks_rise_and_keep_the_time():
    ticks = video_proxy._ticks([2.0, 2.0, 2.5])
    assert ticks == [0, 1, round(0.5 / Fraction(1, 90_000))]


# --- the script -----------------------------------------------------------------------------------

NODE = shutil.which("node")
# Runs the page's own functions on the page's own data, with a page that holds nothing else.
HARNESS = """
globalThis.document = { getElementById: (id) => ({ textContent: BLOCKS[id] }) };
globalThis.window = globalThis;
(async () => {
  const data = await load();
  const rows = Array.from(data.frames, (_, row) => row);
  console.log(JSON.stringify({
    frames: TIMES.map((time) => frameAt(data, time)),
    end: data.end, ranges: data.ranges, starts: Array.from(data.starts),
    rowsOf: Array.from(data.rowsOf),
    noses: rows.map((row) => pointOf(data, data.xy, row, 0)),
    raw: rows.map((row) => pointOf(data, data.raw, row, 0)),
    boxes: rows.map((row) => boxOf(data, row)),
    places: rows.map((row) => placeOf(data, row)),
    scores: rows.map((row) => scoreOf(data, row, 0)),
    confidence: Array.from(overFrames(data, 1, (row) => confidenceOf(data, row)), String),
    at: [trackAt(data, 0, 5, 20), trackAt(data, 0, 500, 20)],
    texts: [clockText(2.25, 0.05), clockText(65, 10), clockText(3, 1)],
  }));
})();
"""


@pytest.mark.skipif(NODE is None, reason="needs node to run the page's script")
def test_script_reads_what_was_written(tmp_path):
    records = make_records((2, 1, 2, 2, 2))
    keypoints_NK2 = records[2][1].keypoints_NK2.copy()
    keypoints_NK2[1, 0] = np.nan
    poses = replace(records[2][1], keypoints_NK2=keypoints_NK2, raw_keypoints_NK2=keypoints_NK2 + 1)
    records[2] = (records[2][0], poses)
    read = write(tmp_path, records)
    blocks = {name: read.block(name) for name in ("report", "poses")}
    times = [-1, 0, 0.0399, 0.04, 0.049999, 0.06, 0.199, 0.233367, 9]
    code = read.code.removesuffix("main();")
    assert code != read.code
    file = tmp_path / "page.js"
    constants = f"const BLOCKS = {json.dumps(blocks)}, TIMES = {times};"
    file.write_text(f"{code}\n{constants}\n{HARNESS}", encoding="utf-8")
    done = subprocess.run([str(NODE), str(file)], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    told = json.loads(done.stdout)
    # A frame counts as reached a hundred-thousandth of a second early.
    assert told["frames"] == [0, 0, 0, 1, 2, 2, 2, 4, 4]
    assert told["end"] == pytest.approx(0.233367 + 0.033367)
    assert told["ranges"] == [[0, 5], [5, 9]]
    assert told["starts"] == [0, 2, 3, 5, 7, 9]
    assert told["rowsOf"] == [0, 5, 1, 2, 6, 3, 7, 4, 8]
    assert told["noses"][6] is None
    step = read.facts["steps"]["pixels"]
    assert np.allclose(told["noses"][2], (2, 2.5), atol=step)
    assert np.allclose(told["raw"][2], (3, 3.5), atol=step)
    assert np.allclose(told["noses"][7], (23, 3.5), atol=step)
    assert np.allclose(told["boxes"][0], (1, 2, 11, 42), atol=step)
    # The middle of the hips, keypoints 11 and 12.
    assert np.allclose(told["places"][0], (11.5, 12), atol=step)
    assert told["scores"][0] == 0.5
    assert told["confidence"] == ["0.5", "NaN", "0.5", "0.5", "0.5"]
    assert told["at"] == [0, -1]
    assert told["texts"] == ["2.25 s", "1:05", "3 s"]


@pytest.mark.skipif(NODE is None, reason="needs node to run the page's script")
def test_script_reads_a_video_with_nobody(tmp_path):
    read = write(tmp_path, [(make_frame("v", time_s=0.0), Poses.empty(load_schema("coco17")))])
    blocks = {name: read.block(name) for name in ("report", "poses")}
    file = tmp_path / "page.js"
    check = "load().then((d) => console.log(d.count, d.end, d.tracked, frameAt(d, 3)));"
    page_of = "globalThis.document = { getElementById: (id) => ({ textContent: BLOCKS[id] }) };"
    code = read.code.removesuffix("main();")
    file.write_text(f"{code}\nconst BLOCKS = {json.dumps(blocks)};\n{page_of}\n{check}")
    done = subprocess.run([str(NODE), str(file)], capture_output=True, text=True, timeout=60)
    assert (done.stdout.split(), done.stderr) == (["1", "0.04", "false", "0"], "")
