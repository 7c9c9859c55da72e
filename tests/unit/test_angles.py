"""Joint angles of stick figures whose angles are known by construction."""

import csv
import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import make_frame, make_poses
from hrnet_cli.angles import ANGLES, joint_angles
from hrnet_cli.errors import OutputError
from hrnet_cli.schema import SCHEMAS, load_schema
from hrnet_cli.sinks import RunInfo, open_sink
from hrnet_cli.sinks.angles import COLUMNS

INFO = RunInfo("starter", "yolo26s", keypoint_threshold=0.3)
HALPE = load_schema("halpe26")


def towards(start, degrees, length=10.0):
    """Return the point that lies from another one at an angle from straight down.

    Positive turns towards the left of the picture, which is clockwise on a screen.
    """
    radians = math.radians(degrees)
    return start[0] - length * math.sin(radians), start[1] + length * math.cos(radians)


def figure(**bends):
    """Return halpe26 keypoints of somebody upright who looks to the left of the picture.

    Args:
        bends: Degrees by which ``thigh``, ``shank``, ``foot``, ``arm``, ``forearm`` turn forward,
            and ``trunk``, ``head`` away from straight up, all in the picture.
    """
    turn = dict.fromkeys(("thigh", "shank", "arm", "forearm", "trunk", "head"), 0.0)
    turn |= {"foot": 90.0} | bends
    hip = (100.0, 100.0)
    shoulder = towards(hip, 180 + turn["trunk"], 30)
    ear = towards(shoulder, 180 + turn["head"], 8)
    knee = towards(hip, turn["thigh"], 20)
    ankle = towards(knee, turn["shank"], 20)
    heel = towards(ankle, turn["shank"], 2)
    elbow = towards(shoulder, turn["arm"], 12)
    points = {
        **{"hip": hip, "shoulder": shoulder, "ear": ear, "knee": knee, "ankle": ankle},
        **{"heel": heel, "big_toe": towards(heel, turn["foot"], 9)},
        **{"elbow": elbow, "wrist": towards(elbow, turn["forearm"], 11)},
    }
    keypoints_K2 = np.full((len(HALPE), 2), np.nan)
    for name, point in points.items():
        for side in ("left", "right"):
            keypoints_K2[HALPE.index[f"{side}_{name}"]] = point
    return keypoints_K2


def angles_of(keypoints_K2, schema=HALPE, scores_K=None, threshold=0.3) -> dict[str, float]:
    scores_K = np.ones(len(schema)) if scores_K is None else scores_K
    degrees_A = joint_angles(keypoints_K2, scores_K, schema, threshold=threshold)
    return dict(zip(ANGLES, degrees_A.tolist(), strict=True))


def test_pixels_that_are_not_square_change_no_angle():
    bends = {"thigh": 50, "shank": -20, "arm": 30, "forearm": 80, "trunk": -15}
    squeezed_K2 = figure(**bends) / [1.5, 1]
    degrees_A = joint_angles(
        squeezed_K2, np.ones(len(HALPE)), HALPE, threshold=0.3, pixel_aspect=1.5
    )
    assert dict(zip(ANGLES, degrees_A.tolist(), strict=True)) == pytest.approx(
        angles_of(figure(**bends)), abs=1e-9
    )


def test_all_angles_are_zero_in_the_anatomical_zero_position():
    assert angles_of(figure()) == pytest.approx(dict.fromkeys(ANGLES, 0.0), abs=1e-9)


@pytest.mark.parametrize(
    ("bends", "angle", "degrees"),
    [
        # Heel to the seat: the shank turns back.
        ({"shank": -120}, "knee_flexion", 120),
        ({"thigh": 90, "shank": 0}, "knee_flexion", 90),
        ({"thigh": 90, "shank": 90}, "hip_flexion", 90),
        # Without a front in the picture, stretched back reads as bent.
        ({"thigh": -20, "shank": -20}, "hip_flexion", 20),
        ({"trunk": -30}, "hip_flexion", 30),
        # Toes up by 20, on the toes by 50, whatever the shank does.
        ({"foot": 110}, "ankle_dorsiflexion", 20),
        ({"foot": 40}, "ankle_dorsiflexion", -50),
        ({"shank": -20, "foot": 90}, "ankle_dorsiflexion", 20),
        ({"forearm": 135}, "elbow_flexion", 135),
        ({"arm": 90, "forearm": 90}, "elbow_flexion", 0),
        ({"arm": 90}, "shoulder_elevation", 90),
        ({"arm": 170}, "shoulder_elevation", 170),
        ({"arm": -30}, "shoulder_elevation", 30),
    ],
)
def test_joints_bend_by_what_the_limbs_turn(bends, angle, degrees):
    found = angles_of(figure(**bends))
    assert found[f"left_{angle}"] == pytest.approx(degrees)
    assert found[f"right_{angle}"] == pytest.approx(degrees)


@pytest.mark.parametrize(("trunk", "degrees"), [(25, 25), (-25, -25), (90, 90), (-170, -170)])
def test_inclination_is_positive_towards_the_right_of_the_picture(trunk, degrees):
    # Turned by more than 180 from straight down, a line leads to the right of the picture.
    assert angles_of(figure(trunk=trunk))["trunk_inclination"] == pytest.approx(degrees)
    assert angles_of(figure(head=trunk))["neck_inclination"] == pytest.approx(degrees)
    upright_2 = figure(trunk=trunk)[[HALPE.index["left_hip"], HALPE.index["left_shoulder"]], 0]
    assert np.sign(upright_2[1] - upright_2[0]) == np.sign(degrees)


def test_one_side_does_not_change_the_other():
    keypoints = figure()
    keypoints[HALPE.index["left_wrist"]] += [5, -9]
    found = angles_of(keypoints)
    assert found["left_elbow_flexion"] > 20
    assert found["right_elbow_flexion"] == pytest.approx(0)


@given(
    bends=st.fixed_dictionaries(
        {name: st.floats(-170, 170) for name in ("thigh", "shank", "foot", "arm", "forearm")}
    ),
    turn=st.floats(-3, 3),
    scale=st.floats(0.1, 30),
    mirror=st.booleans(),
)
def test_joints_do_not_care_where_and_how_large_the_person_is(bends, turn, scale, mirror):
    keypoints = figure(**bends)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    moved = keypoints @ rotation.T * scale * [-1 if mirror else 1, 1] + [7, -300]
    joints = [name for name in ANGLES if "inclination" not in name]
    before, after = angles_of(keypoints), angles_of(moved)
    assert [after[name] for name in joints] == pytest.approx(
        [before[name] for name in joints], abs=1e-6
    )


def test_a_keypoint_below_the_threshold_or_missing_gives_no_angle():
    scores = np.ones(len(HALPE))
    scores[HALPE.index["left_knee"]] = 0.29
    scores[HALPE.index["right_knee"]] = 0.3
    scores[HALPE.index["left_ear"]] = np.nan
    found = angles_of(figure(), scores_K=scores)
    missing = {name for name, degrees in found.items() if math.isnan(degrees)}
    assert missing == {
        "left_knee_flexion",
        "left_hip_flexion",
        "left_ankle_dorsiflexion",
        "neck_inclination",
    }


def test_limbs_without_length_have_no_angle():
    found = angles_of(np.full((len(HALPE), 2), 5.0))
    assert all(math.isnan(degrees) for degrees in found.values())


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_gives_all_columns(name):
    schema = load_schema(name)
    degrees = joint_angles(
        np.random.default_rng(0).random((2, 3, len(schema), 2)),
        np.ones((2, 3, len(schema))),
        schema,
        threshold=0.0,
    )
    assert degrees.shape == (2, 3, len(ANGLES))
    known = {name for name, lost in zip(ANGLES, np.isnan(degrees).all((0, 1)), strict=True) if lost}
    feet = {"left_ankle_dorsiflexion", "right_ankle_dorsiflexion"}
    expected = {
        "halpe26": set(),
        "wholebody133": set(),
        "hand21": set(ANGLES),
        "ap10k": set(ANGLES),
    }
    assert known == expected.get(name, feet)


def test_the_arguments_stay_as_they_are():
    keypoints, scores = figure(), np.zeros(len(HALPE))
    before = keypoints.copy()
    joint_angles(keypoints, scores, HALPE, threshold=0.5)
    np.testing.assert_array_equal(keypoints, before)


# --- The table ----------------------------------------------------------------------------------


def rows(folder) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "clip_angles.csv").read_text("utf-8"))))


def halpe_poses(*people, **fields):
    keypoints = np.array(people).reshape(-1, len(HALPE), 2)
    return make_poses(len(people), HALPE, keypoints_NK2=keypoints, **fields)


def write(folder, pictures, info=INFO):
    sink = open_sink("angles", folder, info, "clip", video=True)
    for frame, poses in pictures:
        sink.write(frame, poses)
    sink.close()


def test_the_table_has_a_row_for_each_person_of_each_frame(tmp_path):
    first = halpe_poses(figure(shank=-120), figure(), track_ids_N=np.array([4, 9]))
    frames = [make_frame("clip.mp4", index=i, time_s=i / 30) for i in range(3)]
    write(tmp_path, zip(frames, [first, halpe_poses(), halpe_poses(figure())], strict=True))
    found = rows(tmp_path)
    assert [(row["frame"], row["person"], row["id"]) for row in found] == [
        ("0", "0", "4"),
        ("0", "1", "9"),
        ("2", "0", ""),
    ]
    assert (found[2]["source"], found[2]["time_s"]) == ("clip.mp4", "0.066667")
    assert float(found[0]["left_knee_flexion"]) == pytest.approx(120, abs=0.05)
    assert found[1]["left_knee_flexion"] == "0.0"
    assert list(found[0]) == list(COLUMNS)


def test_missing_angles_are_empty_cells(tmp_path):
    keypoints = figure()
    keypoints[HALPE.index["left_wrist"]] = np.inf
    write(tmp_path, [(make_frame("p.jpg"), halpe_poses(keypoints))])
    (row,) = rows(tmp_path)
    assert (row["left_elbow_flexion"], row["right_elbow_flexion"], row["time_s"]) == ("", "0.0", "")


def test_nobody_leaves_the_header_alone(tmp_path):
    write(tmp_path, [])
    assert (tmp_path / "clip_angles.csv").read_text() == ",".join(COLUMNS) + "\n"


def test_appending_removes_a_row_that_was_cut(tmp_path):
    write(tmp_path, [(make_frame("a.jpg"), halpe_poses(figure()))])
    path = tmp_path / "clip_angles.csv"
    whole = path.read_bytes()
    path.write_bytes(whole + b"b.jpg,0,,0,,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1")
    append = RunInfo("starter", "yolo26s", keypoint_threshold=0.3, append=True)
    write(tmp_path, [(make_frame("c.jpg"), halpe_poses(figure()))], append)
    assert [row["source"] for row in rows(tmp_path)] == ["a.jpg", "c.jpg"]
    path.write_text("frame,knee\n")
    with pytest.raises(OutputError, match=r"clip_angles.csv': it starts with b'frame,knee"):
        write(tmp_path, [], append)
