"""Built-in keypoint schemas, and what names are taken to say, against MMPose and the official code.

dataset_meta.json holds the constants of 28 data sets of MMPose and of the official COCO and MPII
classes.
"""

import re

import pytest

from hrnet_cli.data.names import derive_flip_pairs
from hrnet_cli.schema import SCHEMAS, load_schema

# MMPose's name of each built-in schema.
MMPOSE = {
    "coco17": "coco",
    "mpii16": "mpii",
    "crowdpose14": "crowdpose",
    "aic14": "aic",
    "halpe26": "halpe26",
    "wholebody133": "coco_wholebody",
    "hand21": "onehand10k",
    "ap10k": "ap10k",
}
# MMPose gives no sigmas for one hand alone; those of the hands of COCO-WholeBody stand in.
SIGMAS_OF = {**MMPOSE, "hand21": "coco_wholebody_hand"}
OFFICIAL = {"coco17": "coco", "mpii16": "mpii"}
NUMBERED = re.compile(r"(face|kpt)-\d+")


@pytest.fixture(scope="module")
def meta(golden):
    return golden("dataset_meta.json")


@pytest.fixture(scope="module")
def datasets(meta):
    return meta["datasets"]


def as_sets(pairs):
    return {frozenset(pair) for pair in pairs}


def positions(schema, names):
    return sorted(schema.index[name] for name in names)


def test_every_built_in_schema_is_compared():
    assert set(MMPOSE) == set(SCHEMAS)


@pytest.mark.parametrize("name", SCHEMAS)
def test_names_pairs_limbs_and_halves_are_those_of_mmpose(name, datasets):
    schema, theirs = load_schema(name), datasets[MMPOSE[name]]
    assert len(schema) == theirs["num_keypoints"]
    assert list(schema.keypoints) == theirs["keypoint_names"]
    assert list(schema.flip_indices) == theirs["flip_indices"]
    pairs = [(schema.index[a], schema.index[b]) for a, b in schema.flip_pairs]
    assert as_sets(pairs) == as_sets(theirs["flip_pairs"])
    assert as_sets(schema.edges) == as_sets(theirs["skeleton_links"])
    assert as_sets(schema.skeleton) == as_sets(theirs["skeleton_link_names"])
    assert positions(schema, schema.upper_body) == theirs["upper_body_ids"]
    assert positions(schema, schema.lower_body) == theirs["lower_body_ids"]


@pytest.mark.parametrize("name", SCHEMAS)
def test_oks_sigmas_are_those_of_mmpose(name, datasets):
    theirs = datasets[SIGMAS_OF[name]]
    assert list(load_schema(name).oks_sigmas) == theirs["sigmas"]


@pytest.mark.parametrize("name", OFFICIAL)
def test_pairs_and_halves_are_those_of_the_official_code(name, meta):
    schema, theirs = load_schema(name), meta["official_repo"][OFFICIAL[name]]
    pairs = [(schema.index[a], schema.index[b]) for a, b in schema.flip_pairs]
    assert as_sets(pairs) == as_sets(theirs["flip_pairs"])
    assert positions(schema, schema.upper_body) == theirs["upper_body_ids"]
    assert positions(schema, schema.lower_body) == theirs["lower_body_ids"]
    if "oks_sigmas_x10" in theirs:
        ours = [10 * sigma for sigma in schema.oks_sigmas]
        assert ours == pytest.approx(theirs["oks_sigmas_x10"], rel=1e-12)


def test_flip_pairs_derived_from_names_are_those_that_mmpose_lists(datasets):
    sided = 0
    for dataset, theirs in datasets.items():
        names = theirs["keypoint_names"]
        listed = as_sets((names[a], names[b]) for a, b in theirs["flip_pairs"])
        # Points of faces are only numbered: nobody could pair them by name.
        paired = {pair for pair in listed if not any(NUMBERED.fullmatch(n) for n in pair)}
        assert as_sets(derive_flip_pairs(tuple(names))) == paired, dataset
        sided += bool(paired)
    assert sided > 10
