"""What keypoint names are taken to say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrnet_cli.data.names import (
    can_mirror,
    complete_schema,
    derive_flip_pairs,
    derive_halves,
    describe_schema,
    find_builtin,
)
from hrnet_cli.data.people import LabelledPeople
from hrnet_cli.schema import SCHEMAS, KeypointSchema, load_schema


def people_of(schema):
    count = len(schema)
    return LabelledPeople(
        name="set", folder=None, schema=schema, photos=(),
        photo_ids_P=np.zeros(0, int), sizes_P2=np.zeros((0, 2), int),
        photo_of_N=np.zeros(0, int), ids_N=np.zeros(0, int), boxes_N4=np.zeros((0, 4)),
        areas_N=np.zeros(0), keypoints_NK2=np.zeros((0, count, 2)),
        visible_NK=np.zeros((0, count), np.uint8), weights_NK=np.zeros((0, count), np.float32),
        crowd_N=np.zeros(0, bool),
    )  # fmt: skip


def named(*names, **fields):
    return people_of(complete_schema(KeypointSchema("set", names, **fields)))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("left_eye", "right_eye"),
        ("eye_left", "eye_right"),
        ("l_eye", "r_eye"),
        ("eye_l", "eye_r"),
        ("L.Eye", "R.Eye"),
        ("Eye.L", "Eye.R"),
        ("left eye", "right eye"),
        ("Left-Eye", "Right-Eye"),
        ("leftEye", "rightEye"),
        ("LEye", "REye"),
        ("eyeL", "eyeR"),
        ("lefteye", "righteye"),
        ("lwrist", "rwrist"),
        ("LSHO", "RSHO"),
        ("front_left_paw", "front_right_paw"),
        ("L_F_Paw", "R_F_Paw"),
        ("left_finger_2", "right_finger_2"),
        ("L1", "R1"),
    ],
)
def test_ways_to_write_left_and_right(left, right):
    assert derive_flip_pairs((right, "nose", left)) == ((left, right),)


@pytest.mark.parametrize(
    "names",
    [
        ("nose", "tail"),
        ("left_eye", "right_ear"),  # no partners
        ("left_eye", "l_eye", "right_eye"),  # two that could be meant
        ("lip", "root"),
        ("left", "eye"),
        ("kpt_0", "kpt_1"),
    ],
)
def test_names_without_pairs(names):
    assert derive_flip_pairs(names) == ()


@pytest.mark.parametrize("name", SCHEMAS)
def test_built_in_schemas_agree_with_their_names(name):
    """The pairs of the built-in schemas were written by hand, from their sources."""
    schema = load_schema(name)
    derived = {frozenset(pair) for pair in derive_flip_pairs(schema.keypoints)}
    by_hand = {frozenset(pair) for pair in schema.flip_pairs}
    if name == "wholebody133":  # its face points are only numbered
        assert derived < by_hand
    else:
        assert derived == by_hand
    assert can_mirror(people_of(schema))
    assert find_builtin(schema.keypoints) is schema


@given(st.lists(st.text("lrLR_efthigx ", min_size=1, max_size=12), min_size=1, unique=True))
def test_pairs_of_any_names_are_an_involution(names):
    schema = KeypointSchema("any", tuple(names), flip_pairs=derive_flip_pairs(tuple(names)))
    for index, other in enumerate(schema.flip_indices):
        assert schema.flip_indices[other] == index


def test_mirroring_needs_partners_and_names():
    assert can_mirror(named("left_eye", "right_eye", "nose"))
    assert can_mirror(named("wrist", "thumb", "pinky"))
    assert not can_mirror(named("left_eye", "nose"))
    assert not can_mirror(named("left_eye", "right_eye", "left_ear"))
    assert not can_mirror(named("kpt_0", "kpt_1"))
    assert not can_mirror(named("0", "1"))
    assert can_mirror(named("kpt_0", "kpt_1", flip_pairs=(("kpt_0", "kpt_1"),)))


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (("left_eye", "right_eye"), "flip pairs: left_eye and right_eye"),
        (
            ("left_eye", "nose"),
            "flip pairs: none; left_eye without a partner on the other side: mi",
        ),
        (("kpt_0", "kpt_1"), "flip pairs: none can be derived from the names: mirroring is off"),
        (("wrist", "thumb"), "flip pairs: none, the names have no left and right: mirrored pictu"),
        (("a", "b", "c", "d"), "OKS sigmas: 0.1 each"),
        (("a", "b"), "half-body augmentation: off"),
        (("a", "b"), "set: 2 keypoints (schema set): a, b"),
    ],
)
def test_what_is_said(names, line):
    assert any(said.startswith(line) for said in describe_schema(named(*names)))


def test_halves_of_humans_only():
    lsp = ("right_ankle", "right_knee", "right_hip", "right_wrist", "right_shoulder", "head_top")
    assert derive_halves(lsp) == (("right_wrist", "right_shoulder", "head_top"), lsp[:3])
    assert derive_halves(("left_shoulder", "left_hip", "left_paw")) == ((), ())
    assert derive_halves(("wrist", "thumb")) == ((), ())


@pytest.mark.parametrize("name", ["coco17", "mpii16", "aic14", "crowdpose14"])
def test_derived_halves_are_those_of_the_built_in_schemas(name):
    schema = load_schema(name)
    assert derive_halves(schema.keypoints) == (schema.upper_body, schema.lower_body)


def test_built_in_schemas_are_recognised_in_other_spellings():
    coco = load_schema("coco17")
    spelt = tuple(name.replace("_", " ").title() for name in coco.keypoints)
    assert find_builtin(spelt) is coco
    assert find_builtin(coco.keypoints[::-1]) is None
    assert find_builtin(coco.keypoints[:5]) is None
