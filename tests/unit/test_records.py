import json
import os
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import make_frame, make_poses
from hrnet_cli.errors import InputError
from hrnet_cli.records import Origin, mean_rate, read_origin, read_records, tracks
from hrnet_cli.schema import KeypointSchema, load_schema
from hrnet_cli.sinks import RunInfo
from hrnet_cli.sinks.record import record, to_json
from hrnet_cli.structures import FILLED, SWAPPED, Boxes, Frame, Poses

INFO = RunInfo("starter", "yolo26s", keypoint_threshold=0.3)
TWO_POINTS = KeypointSchema("two", ("tip", "tail"), skeleton=(("tip", "tail"),))


NOBODY = make_poses(0)


def video_frame(index, *, name="clip.mp4", fps=30, **fields) -> Frame:
    """Return a frame of a video of 30 frames a second."""
    timing = {"time_s": index / fps, "pts": index * 512, "time_base": Fraction(1, 512 * fps)}
    return make_frame(name, index=index, **(timing | fields))


def write(path, pictures, info=INFO):
    lines = [to_json(record(frame, poses, info)) + b"\n" for frame, poses in pictures]
    path.write_bytes(b"".join(lines))
    return path


def line_of(frame, poses) -> dict:
    return record(frame, poses, INFO)


def broken(path, **changes):
    """Write a good record and behind it one with other fields; None leaves a field out."""
    good = line_of(video_frame(0), make_poses(1, TWO_POINTS, track_ids_N=np.array([4])))
    bad = {key: value for key, value in (good | changes).items() if value is not None}
    path.write_text(json.dumps(good) + "\n" + json.dumps(bad) + "\n")
    return path


def person(**changes) -> dict:
    poses = make_poses(1, TWO_POINTS, track_ids_N=np.array([4]))
    return line_of(video_frame(0), poses)["people"][0] | changes


def error_of(path, **options) -> InputError:
    with pytest.raises(InputError) as raised:
        list(read_records(path, **options))
    assert raised.value.message.count("\n") == 0
    return raised.value


def test_the_first_record_tells_the_origin(tmp_path):
    path = write(tmp_path / "a.jsonl", [(video_frame(0), make_poses(1)), (video_frame(1), NOBODY)])
    assert read_origin(path) == Origin("clip.mp4", True, "starter", "yolo26s")
    photo = write(tmp_path / "b.jsonl", [(make_frame("x/photo.jpg"), make_poses(0))])
    assert read_origin(photo) == Origin("x/photo.jpg", False, "starter", "yolo26s")


# --- Reading what was written -------------------------------------------------------------------


def test_everything_of_a_video_frame_comes_back(tmp_path):
    frame = video_frame(7, name="sub/clip.mp4", source="in/sub/clip.mp4", rotation=90)
    poses = make_poses(
        2,
        TWO_POINTS,
        track_ids_N=np.array([3, 12]),
        raw_keypoints_NK2=np.array([[[1, 2.5], [np.nan, 0]], [[5, 6], [7, 8]]], np.float32),
        flags_NK=np.array([[0, FILLED], [SWAPPED, FILLED | SWAPPED]], np.uint8),
    )
    ((read_frame, read),) = read_records(write(tmp_path / "a.jsonl", [(frame, poses)]))
    assert (read_frame.source, read_frame.name) == ("in/sub/clip.mp4", "clip.mp4")
    assert (read_frame.index, read_frame.size_wh) == (7, (64, 48))
    assert read_frame.time_s == round(7 / 30, 6)
    assert (read_frame.pts, read_frame.time_base) == (7 * 512, Fraction(1, 15360))
    assert (read_frame.rotation, read_frame.orientation) == (90, 1)
    assert (read.schema.name, read.schema.keypoints) == ("two", ("tip", "tail"))
    assert read.track_ids_N.tolist() == [3, 12]
    np.testing.assert_allclose(read.keypoints_NK2, poses.keypoints_NK2)
    np.testing.assert_allclose(read.scores_NK, poses.scores_NK)
    np.testing.assert_allclose(read.person_scores_N, poses.person_scores_N)
    np.testing.assert_allclose(read.boxes.xyxy_N4, poses.boxes.xyxy_N4)
    np.testing.assert_allclose(read.boxes.scores_N, poses.boxes.scores_N)
    assert np.isnan(read.raw_keypoints_NK2[0, 1]).all()
    assert read.raw_keypoints_NK2[1].tolist() == [[5, 6], [7, 8]]
    assert read.flags_NK.tolist() == [[0, 1], [2, 3]]


def test_a_photo_has_none_of_the_fields_of_videos(tmp_path):
    ((frame, poses),) = read_records(
        write(tmp_path / "a.jsonl", [(make_frame("p.jpg", orientation=6), make_poses(1))])
    )
    assert (frame.time_s, frame.pts, frame.time_base, frame.rotation) == (None, None, None, 0)
    assert frame.orientation == 6
    assert (poses.track_ids_N, poses.raw_keypoints_NK2, poses.flags_NK) == (None, None, None)
    assert poses.schema is load_schema("coco17")


def test_pictures_take_no_memory(tmp_path):
    frame = make_frame(width=1)
    big = line_of(frame, make_poses(0)) | {"width": 100_000, "height": 50_000}
    (tmp_path / "a.jsonl").write_text(json.dumps(big) + "\n")
    ((frame, _),) = read_records(tmp_path / "a.jsonl")
    assert frame.image_HW3.shape == (50_000, 100_000, 3)
    assert frame.image_HW3.base.nbytes == 3


@pytest.mark.parametrize("people", [0, 1])
def test_nobody_and_an_empty_file_are_ordinary(tmp_path, people):
    path = write(tmp_path / "a.jsonl", [(video_frame(i), make_poses(0)) for i in range(people)])
    assert [len(poses) for _, poses in read_records(path)] == [0] * people


def test_fields_that_are_not_known_are_ignored(tmp_path):
    fields = line_of(video_frame(0), make_poses(1)) | {"weather": {"rain": True}}
    fields["people"][0]["mood"] = [1, 2]
    (tmp_path / "a.jsonl").write_text(json.dumps(fields) + "\n")
    assert [len(poses) for _, poses in read_records(tmp_path / "a.jsonl")] == [1]


def test_a_given_schema_stands_in_for_the_names_of_a_record(tmp_path):
    path = write(tmp_path / "a.jsonl", [(make_frame(), make_poses(1, TWO_POINTS))])
    ((_, without),) = read_records(path)
    ((_, poses),) = read_records(path, schema=TWO_POINTS)
    ((_, other),) = read_records(path, schema=KeypointSchema("two", ("tail", "tip")))
    assert without.schema.skeleton == ()
    assert poses.schema is TWO_POINTS
    assert other.schema.keypoints == ("tip", "tail")


FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)


@st.composite
def pictures(draw):
    """Draw a frame and its poses: every optional field there or not, all numbers of float32."""
    schema = draw(st.sampled_from([TWO_POINTS, load_schema("crowdpose14")]))
    people, count = draw(st.integers(0, 2)), len(schema)

    def array(*shape, values=FLOATS, dtype=np.float32):
        size = int(np.prod(shape))
        return np.array(draw(st.lists(values, min_size=size, max_size=size)), dtype).reshape(shape)

    def perhaps(*shape, **kind):
        return array(people, *shape, **kind) if draw(st.booleans()) else None

    poses = Poses(
        array(people, count, 2),
        array(people, count),
        array(people),
        Boxes(array(people, 4), array(people)),
        schema,
        track_ids_N=perhaps(values=st.integers(0, 2**62), dtype=np.int64),
        raw_keypoints_NK2=perhaps(count, 2),
        flags_NK=perhaps(count, values=st.integers(0, 3), dtype=np.uint8),
    )
    timing = {}
    if draw(st.booleans()):
        timing = {
            "time_s": draw(st.floats(0, 1e6)),
            "pts": draw(st.integers(-(2**62), 2**62)),
            "pixel_aspect": draw(st.sampled_from([Fraction(1), Fraction(4, 3), Fraction(40, 33)])),
            "time_base": draw(st.fractions(Fraction(1, 10**6), 10, max_denominator=10**6)),
            "rotation": draw(st.sampled_from([0, 90, 180, 270])),
        }
    source = os.fsdecode(draw(st.binary(min_size=1, max_size=8)))
    size = {"width": draw(st.integers(1, 70)), "height": draw(st.integers(1, 70))}
    index = draw(st.integers(0, 10**9))
    return make_frame("x", source=source, index=index, **size, **timing), poses


@settings(deadline=None, max_examples=40)
@given(picture=pictures(), drop_low=st.booleans())
def test_writing_what_was_read_gives_the_same_bytes(tmp_path_factory, picture, drop_low):
    info = RunInfo("starter", "yolo26s", keypoint_threshold=0.3, drop_low=drop_low)
    path = write(tmp_path_factory.mktemp("r") / "a.jsonl", [picture, picture], info)
    again = [to_json(record(frame, poses, info)) + b"\n" for frame, poses in read_records(path)]
    assert b"".join(again) == path.read_bytes()


def test_the_hard_numbers_come_back_too(tmp_path):
    # Half a thousandth from the border, and just at the threshold.
    poses = make_poses(
        1,
        TWO_POINTS,
        keypoints_NK2=np.array([[[63.4996, 1.0], [-0.5004, 9000.0005]]]),
        scores_NK=np.array([[0.70004, 0.69996]]),
    )
    info = RunInfo("starter", "yolo26s", keypoint_threshold=0.7, drop_low=True)
    frame = make_frame()
    path = write(tmp_path / "a.jsonl", [(frame, poses)], info)
    assert json.loads(path.read_text())["people"][0]["in_frame"] == [False, False]
    ((frame, read),) = read_records(path)
    assert to_json(record(frame, read, info)) + b"\n" == path.read_bytes()


# --- Broken files -------------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path):
    error = error_of(tmp_path / "no.jsonl")
    assert error.message == (
        f"records '{tmp_path / 'no.jsonl'}' cannot be read: No such file or directory"
    )


def test_a_cut_last_line_is_an_error_unless_allowed(tmp_path):
    path = write(tmp_path / "a.jsonl", [(video_frame(i), make_poses(1)) for i in range(3)])
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    error = error_of(path)
    assert error.message == f"'{path}' line 3 is cut: the run that wrote it was stopped"
    assert error.hint == "finish it with --resume"
    assert [frame.index for frame, _ in read_records(path, allow_cut=True)] == [0, 1]
    path.write_bytes(whole[:-1])
    assert [frame.index for frame, _ in read_records(path)] == [0, 1, 2]


@pytest.mark.parametrize("allow_cut", [False, True])
def test_a_broken_line_in_the_middle_is_always_an_error(tmp_path, allow_cut):
    path = write(tmp_path / "a.jsonl", [(video_frame(i), make_poses(1)) for i in range(2)])
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first[:50] + b"\n" + second)
    error = error_of(path, allow_cut=allow_cut)
    assert error.message.startswith(f"'{path}' line 1 is not readable as JSON: ")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"\n", " is not readable as JSON: "),
        (b'{"schema":"hrnet-poses/1","x":NaN}\n', " is not readable as JSON: NaN is no JSON"),
        (b"\xff\xfe\n", " is not readable as JSON: "),
        (b"[" * 100_000 + b"\n", " is not readable as JSON: "),
        (b"[1]\n", " is no pose record: its schema is None, expected 'hrnet-poses/1'"),
        (b'{"schema":"hrnet-poses/2"}\n', " is no pose record: its schema is 'hrnet-poses/2', e"),
        (b'{"schema":"hrnet-poses/1"}\n', ": Object missing required field `source`"),
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path, line, reason):
    path = tmp_path / "a.jsonl"
    path.write_bytes(line)
    assert error_of(path).message.startswith(f"'{path}' line 1{reason}")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"width": 0}, ": width is 0, expected at least 1 pixel"),
        ({"height": 2**40}, f": height is {2**40}, expected at least 1 pixel"),
        ({"frame": "1"}, ": Expected `int`, got `str` - at `$.frame`"),
        ({"time_base": "1/0"}, ": time_base is '1/0', expected seconds such as '1/12800'"),
        ({"pixel_aspect": "0"}, ": pixel_aspect is '0', expected a fraction such as '4/3'"),
        ({"time_base": "-1/25"}, ": time_base is '-1/25', expected seconds such as '1/12800'"),
        ({"keypoint_names": None}, ": keypoint schema 'two' is not known, and there are no"),
        ({"keypoint_names": ["tip", "tip"]}, ": schema 'two' names keypoint 'tip' more than once"),
        ({"people": [person(), {}]}, ": Object missing required field `box` - at `$.people[1]`"),
        (
            {"people": [person(keypoints=[[1, 2, 0.5]])]},
            ": people[0].keypoints has 1 entries, expected 2, one a keypoint",
        ),
        (
            {"people": [person(keypoints=[[1, 2], None])]},
            ": Expected `array` of length 3, got 2 - at `$.people[0].keypoints[0]`",
        ),
        (
            {"people": [person(keypoints_raw=[None])]},
            ": people[0].keypoints_raw has 1 entries, expected 2, one a keypoint",
        ),
        (
            {"people": [person(flags=[0, 300])]},
            ": people[0].flags is [0, 300], expected numbers from 0 to 255",
        ),
        ({"people": [person(id=2**63)]}, f": people[0].id is {2**63}, expected less than 2 to"),
        (
            {"people": [person(), person(id=None)]},
            ": people[1] has no id, unlike others of its picture",
        ),
        (
            {"people": [person(), person(flags=[0, 0])]},
            ": people[0] has no flags, unlike others of its picture",
        ),
    ],
)
def test_what_is_wrong_in_a_record_is_named_with_its_line(tmp_path, changes, reason):
    path = broken(tmp_path / "a.jsonl", **changes)
    assert error_of(path).message.startswith(f"'{path}' line 2{reason}")


# --- Motion -------------------------------------------------------------------------------------


def moving(index, ids, **fields):
    """Return a frame whose people stand at x = 100 * id + index."""
    ids = list(ids)
    x_N = [100 * (number or 0) + index for number in ids]
    keypoints = np.array([[[x, 1.0], [x, 2.0]] for x in x_N]).reshape(-1, 2, 2)
    known = None if None in ids or not ids else np.array(ids)
    poses = make_poses(len(ids), TWO_POINTS, keypoints_NK2=keypoints, track_ids_N=known, **fields)
    return video_frame(index), poses


def test_tracks_span_from_the_first_to_the_last_sighting():
    records = [moving(i, ids) for i, ids in enumerate([[], [5], [9, 5], [9], [5], []])]
    five, nine = tracks(records)
    assert (five.id, nine.id) == (5, 9)
    assert five.frames_T.tolist() == [1, 2, 3, 4]
    assert nine.frames_T.tolist() == [2, 3]
    np.testing.assert_allclose(five.times_T, np.arange(1, 5) / 30)
    assert five.keypoints_TK2.shape == (4, 2, 2)
    np.testing.assert_array_equal(five.keypoints_TK2[:, 0, 0], [501, 502, np.nan, 504])
    np.testing.assert_array_equal(five.scores_TK[:, 1], [0.5, 0.5, np.nan, 0.5])
    np.testing.assert_array_equal(nine.keypoints_TK2[:, 1, 0], [902, 903])


def test_frame_numbers_and_times_are_those_of_the_records():
    every_second = [moving(i, [1]) for i in (10, 12, 14)]
    (track,) = tracks(every_second)
    assert track.frames_T.tolist() == [10, 12, 14]
    assert mean_rate(track.times_T) == pytest.approx(15)


def test_one_person_needs_no_ids():
    (track,) = tracks([moving(i, [None] if i != 1 else []) for i in range(3)])
    assert track.id is None
    np.testing.assert_array_equal(track.keypoints_TK2[:, 0, 0], [0, np.nan, 2])


@pytest.mark.parametrize("records", [[], [moving(0, []), moving(1, [])]])
def test_nobody_gives_no_track(records):
    assert tracks(records) == []


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        (
            [moving(0, [None]), moving(1, [None, None])],
            "frame 1 of 'clip.mp4' shows 2 people without ids: motion needs --track",
        ),
        (
            [moving(0, [4, 4])],
            "frame 0 of 'clip.mp4' has id 4 more than once, expected different ids",
        ),
        (
            [moving(0, [4]), moving(1, [None])],
            "frame 1 of 'clip.mp4' has people without ids, unlike the frames before",
        ),
        (
            [moving(0, [None]), moving(1, [4])],
            "frame 1 of 'clip.mp4' has people with ids, unlike the frames before",
        ),
        (
            [(make_frame("p.jpg"), make_poses(1))],
            "'p.jpg' is a photo, expected a video: motion needs times",
        ),
    ],
)
def test_it_must_be_clear_who_is_who(records, reason):
    with pytest.raises(InputError) as raised:
        tracks(records)
    assert raised.value.message == reason


@pytest.mark.parametrize("times", [[], [1.0], [2.0, 2.0]])
def test_too_few_times_have_no_rate(times):
    assert mean_rate(np.array(times)) is None
