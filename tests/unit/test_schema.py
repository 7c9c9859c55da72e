import tomllib

import pytest

from hrnet_cli.errors import ConfigError, ExitCode
from hrnet_cli.schema import (
    SCHEMA_FOLDER,
    SCHEMAS,
    KeypointSchema,
    load_schema,
    schema_from_dict,
    schema_to_dict,
)

COUNTS = {
    "coco17": 17,
    "mpii16": 16,
    "crowdpose14": 14,
    "aic14": 14,
    "halpe26": 26,
    "wholebody133": 133,
    "hand21": 21,
    "ap10k": 17,
}


def failure(call, *arguments, **options):
    with pytest.raises(ConfigError) as raised:
        call(*arguments, **options)
    assert raised.value.exit_code == ExitCode.CONFIG
    return raised.value.message, raised.value.hint


def broken(**fields):
    """What is said of a dog with these fields; its own are right."""
    dog = {
        "name": "dog",
        "keypoints": ["nose", "left_ear", "right_ear", "tail"],
        "skeleton": [["nose", "tail"]],
        "flip_pairs": [["left_ear", "right_ear"]],
    }
    return failure(schema_from_dict, dog | fields, where="dog.toml")


def test_every_file_is_listed_and_every_listed_one_is_a_file():
    assert {path.stem for path in SCHEMA_FOLDER.glob("*.toml")} == set(SCHEMAS) == set(COUNTS)


@pytest.mark.parametrize("name", SCHEMAS)
def test_built_in_schemas_are_consistent(name):
    schema = load_schema(name)
    assert schema.name == name
    assert len(schema) == len(schema.keypoints) == len(schema.oks_sigmas) == COUNTS[name]
    assert [schema.keypoints[i] for i in schema.index.values()] == list(schema.index)
    names = [(schema.keypoints[a], schema.keypoints[b]) for a, b in schema.edges]
    assert names == list(schema.skeleton)
    assert len({frozenset(edge) for edge in schema.edges}) == len(schema.edges) > 0


@pytest.mark.parametrize("name", SCHEMAS)
def test_mirroring_twice_changes_nothing_and_sides_change_places(name):
    schema = load_schema(name)
    flip = schema.flip_indices
    assert [flip[flip[k]] for k in range(len(schema))] == list(range(len(schema)))
    # Named sides and pairs must tell the same story: a forgotten pair costs AP silently.
    for k, keypoint in enumerate(schema.keypoints):
        partner = schema.keypoints[flip[k]]
        for side, other in (("left", "right"), ("right", "left")):
            if side in keypoint.lower().split("_"):
                assert partner == keypoint.replace(side, other)


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_survive_a_round_trip(name):
    schema = load_schema(name)
    assert schema_from_dict(schema_to_dict(schema), where="record") == schema


def test_coco_is_that_of_the_evaluation_code():
    schema = load_schema("coco17")
    # pycocotools 2.0, Params.setKpParams: nose, then each pair's common value.
    pairs = [0.025, 0.035, 0.079, 0.072, 0.062, 0.107, 0.087, 0.089]
    assert schema.oks_sigmas == (0.026, *(sigma for sigma in pairs for _ in "lr"))
    assert schema.flip_indices == (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "dog.toml"
    path.write_text('name = "dog"\nkeypoints = ["nose", "schwänzchen"]\n', encoding="utf-8")
    schema = load_schema(str(path))
    assert schema.keypoints == ("nose", "schwänzchen")
    assert (schema.skeleton, schema.flip_pairs, schema.flip_indices) == ((), (), (0, 1))
    assert schema.oks_sigmas == (0.1, 0.1)  # 1/K would be 0.5, and anything right


def test_built_in_schemas_are_read_once():
    assert load_schema("coco17") is load_schema("coco17")


def test_unknown_schema_names():
    message, hint = failure(load_schema, "coco71")
    assert message == (
        f"keypoint schema 'coco71' is not known; expected one of {', '.join(SCHEMAS)} or a .toml"
        " file"
    )
    assert hint == f"did you mean 'coco17'? the built-in files in {SCHEMA_FOLDER} show the form"
    _, hint = failure(load_schema, "zzz")
    assert hint == f"the built-in files in {SCHEMA_FOLDER} show the form"


def test_files_that_cannot_be_read(tmp_path):
    missing = tmp_path / "missing.toml"
    assert failure(load_schema, str(missing))[0] == (
        f"{missing}: cannot be read: No such file or directory"
    )
    path = tmp_path / "dog.toml"
    path.write_text("keypoints = [", encoding="utf-8")
    with pytest.raises(tomllib.TOMLDecodeError) as reason:
        tomllib.loads("keypoints = [")
    assert failure(load_schema, str(path))[0] == f"{path}: not readable as TOML: {reason.value}"
    path.write_text("keypoints = " + "[" * 9999, encoding="utf-8")
    assert failure(load_schema, str(path))[0].startswith(f"{path}: not readable as TOML: maximum")
    path.write_bytes(b'name = "\xff"')
    assert failure(load_schema, str(path))[0].startswith(f"{path}: not readable as TOML: 'utf-8'")


def test_messages_name_the_file(tmp_path):
    path = tmp_path / "dog.toml"
    path.write_text('name = "dog"\nkeypoints = ["a", "a"]\n', encoding="utf-8")
    assert failure(load_schema, str(path))[0] == (
        f"{path}: schema 'dog' names keypoint 'a' more than once"
    )


@pytest.mark.parametrize(
    ("fields", "message", "hint"),
    [
        ({"keypoint": []}, "unknown key 'keypoint'", "did you mean 'keypoints'?"),
        (
            {"zzz": 1},
            "unknown key 'zzz'",
            "known keys: name, keypoints, skeleton, flip_pairs, oks_sigmas, upper_body, lower_body",
        ),
        ({"name": ""}, "'name' is '', expected a non-empty text", ""),
        ({"name": 3}, "'name' is 3, expected a non-empty text", ""),
        ({"keypoints": "nose"}, "'keypoints' is 'nose', expected a list of names", ""),
        ({"keypoints": ["nose", 3]}, "'keypoints' is ['nose', 3], expected a list of names", ""),
        (
            {"keypoints": []},
            "schema 'dog' has no keypoints, expected at least one name",
            "",
        ),
        (
            {"keypoints": ["nose", "nose"]},
            "schema 'dog' names keypoint 'nose' more than once",
            "",
        ),
        (
            {"skeleton": [["nose", "tial"]]},
            "skeleton of schema 'dog' names keypoint 'tial', which is not among its keypoints",
            "did you mean 'tail'?",
        ),
        (
            {"flip_pairs": [["zzz", "nose"]]},
            "flip_pairs of schema 'dog' names keypoint 'zzz', which is not among its keypoints",
            "keypoints: nose, left_ear, right_ear, tail",
        ),
        (
            {"skeleton": [["nose", "nose"]]},
            "skeleton of schema 'dog' pairs 'nose' with itself",
            "a pair needs two different keypoints",
        ),
        (
            {"skeleton": 3},
            "'skeleton' is 3, expected a list of pairs of keypoint names",
            "",
        ),
        (
            {"skeleton": [["nose"]]},
            "'skeleton' holds ['nose'], expected a pair of keypoint names",
            "",
        ),
        (
            {"skeleton": [[0, 1]]},
            "'skeleton' holds [0, 1], expected a pair of keypoint names",
            "",
        ),
        (
            {"flip_pairs": [["left_ear", "right_ear"], ["tail", "left_ear"]]},
            "flip_pairs of schema 'dog' use 'left_ear' more than once",
            "mirroring twice must give the same picture: one partner for each keypoint",
        ),
        (
            {"oks_sigmas": [0.1, 0.1]},
            "schema 'dog' has 2 oks_sigmas, expected 4, one for each keypoint",
            "leave oks_sigmas out to use 1/K for each, 0.1 at most",
        ),
        (
            {"oks_sigmas": [0.1, 0, 0.1, 0.1]},
            "schema 'dog' has OKS sigma 0.0 for 'left_ear', expected a number above 0",
            "",
        ),
        (
            {"oks_sigmas": [0.1, True, 0.1, 0.1]},
            "'oks_sigmas' is [0.1, True, 0.1, 0.1], expected a list of numbers",
            "",
        ),
        (
            {"upper_body": ["noze"]},
            "upper_body of schema 'dog' names 'noze', which is not a keypoint",
            "",
        ),
        (
            {"lower_body": ["noze"]},
            "lower_body of schema 'dog' names 'noze', which is not a keypoint",
            "",
        ),
    ],
)
def test_what_is_wrong_is_said_with_the_place(fields, message, hint):
    assert broken(**fields) == (f"dog.toml: {message}", hint)


def test_a_schema_made_in_code_is_checked_too():
    message, _ = failure(KeypointSchema, "dog", ("nose",), flip_pairs=(("nose", "nose"),))
    assert message == "flip_pairs of schema 'dog' pairs 'nose' with itself"


@pytest.mark.parametrize("sigma", [float("nan"), float("inf"), -0.1])
def test_sigmas_are_positive_numbers(sigma):
    message, _ = broken(oks_sigmas=[0.1, 0.1, 0.1, sigma])
    assert message == (
        f"dog.toml: schema 'dog' has OKS sigma {sigma} for 'tail', expected a number above 0"
    )
