"""The data sets a configuration names, opened and held against each other."""

import json
import shutil
from pathlib import Path

import pytest

from hrnet_cli import training_data
from hrnet_cli.errors import ExitCode, HrnetError, InputError, NoSplitError
from hrnet_cli.recipe import DataConfig
from hrnet_cli.training_data import open_training_data
from training_data import NAMES, configure, write_spots


@pytest.fixture
def spots(tmp_path):
    return write_spots(tmp_path / "spots", photos=3)


@pytest.fixture
def other(tmp_path):
    """Return spots with other keypoints."""
    return write_spots(tmp_path / "other", photos=2, names=["left_spot", "right_spot"])


WITHOUT = "; --val 10% holds photos out for it, --val FILE names others"


def opened(**fields):
    notes = []
    data = open_training_data(DataConfig(**fields), notes.append)
    return data, [note for note in notes if note.startswith("nothing is measured")]


def failure(kind, **fields):
    with pytest.raises(kind) as raised:
        open_training_data(DataConfig(**fields))
    return raised.value


def write_toml(folder, *splits, annotations="spots.json"):
    lines = [f'{split} = {{annotations = "{annotations}"}}' for split in splits]
    (folder / "my.toml").write_text("\n".join(["name = 'my'", *lines]))
    return str(folder / "my.toml")


# ---------------------------------------------------------------- what to learn from


def test_a_json_file_is_learnt_from_and_nothing_is_measured(spots):
    data, notes = opened(train=str(spots))
    assert data.people.schema.keypoints == tuple(NAMES)
    assert len(data.people) == len(data.people.photos) == 3
    assert data.people.photo_path(0).is_file()
    assert data.val is None
    assert data.mirrors
    assert notes == [f"nothing is measured: a .json file is one split{WITHOUT}"]
    assert not data.held_out


def test_what_was_read_is_told(spots):
    notes = []
    open_training_data(DataConfig(train=str(spots)), notes.append)
    assert any("3 keypoints" in note and "left_spot, right_spot" in note for note in notes)
    assert any(note.startswith("flip pairs: left_spot and right_spot") for note in notes)


def test_further_data_sets_are_learnt_from_together(spots, tmp_path):
    extra = write_spots(tmp_path / "more", photos=2, seed=1)
    data, _ = opened(train=str(spots), extra=(str(extra), str(spots)))
    assert len(data.people) == 3 + 2 + 3
    folders = [data.people.photo_path(photo).parent.name for photo in data.people.photo_of_N]
    assert folders == ["spots"] * 3 + ["more"] * 2 + ["spots"] * 3
    assert all(data.people.photo_path(photo).is_file() for photo in data.people.photo_of_N)


def test_a_further_data_set_file_is_relative_to_the_folder_as_the_first_is(spots, tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    file = write_toml(files, "train", annotations="spots/spots.json")
    data, _ = opened(train=file, extra=(file,), folder=str(tmp_path))
    assert len(data.people) == 3 + 3


def test_further_data_sets_of_other_keypoints_are_refused(spots, other):
    error = failure(InputError, train=str(spots), extra=(str(other),))
    assert "has other keypoints than" in error.message
    assert "left_spot, right_spot, ..." in error.message


def test_one_set_whose_names_cannot_be_mirrored_keeps_all_from_it(spots, tmp_path):
    names = ["kpt_0", "kpt_1", "kpt_2"]
    numbered = write_spots(tmp_path / "numbered", names=names)
    assert not opened(train=str(numbered))[0].mirrors
    file = tmp_path / "numbered" / "my.toml"
    schema = f"{{keypoints = {names}, flip_pairs = [['kpt_0', 'kpt_1']]}}"
    file.write_text(f'schema = {schema}\ntrain = {{annotations = "spots.json"}}\n')
    assert opened(train=str(file))[0].mirrors
    assert not opened(train=str(file), extra=(str(numbered),))[0].mirrors
    alone = write_spots(tmp_path / "alone", names=["left_spot", "tail", "nose"])
    assert not opened(train=str(alone))[0].mirrors
    assert opened(train=str(spots), extra=(str(spots),))[0].mirrors


@pytest.mark.parametrize("field", ["train", "val", "extra"])
def test_a_data_set_that_is_not_there_is_one_line(field, spots, tmp_path):
    missing = str(tmp_path / "gone.json")
    value = {"train": missing, "val": missing, "extra": (missing,)}[field]
    error = failure(HrnetError, **{"train": str(spots), field: value})
    assert error.exit_code in (ExitCode.INPUT, ExitCode.CONFIG)
    assert "gone.json" in error.message
    assert "\n" not in error.message


def test_a_data_set_that_is_no_data_set(spots):
    spots.write_text("{")
    error = failure(InputError, train=str(spots))
    assert str(spots) in error.message


def test_photos_in_another_folder_are_found(spots, tmp_path):
    photos = tmp_path / "far" / "photos"
    photos.mkdir(parents=True)
    for photo in spots.parent.glob("*.png"):
        shutil.move(photo, photos)
    data, _ = opened(train=str(spots), folder=str(photos))
    assert data.people.folder == photos
    assert data.people.photo_path(2).is_file()


# ---------------------------------------------------------------- what to measure on


def test_a_json_file_to_measure_on(spots, tmp_path):
    val = write_spots(tmp_path / "val", photos=2, seed=1)
    data, notes = opened(train=str(spots), val=str(val))
    assert len(data.val) == 2
    assert data.val.photo_path(0).parent == val.parent
    assert notes == []


def test_photos_to_measure_on_may_lie_beside_their_labels_or_where_the_others_do(spots, tmp_path):
    photos = tmp_path / "far"
    photos.mkdir()
    for photo in spots.parent.glob("*.png"):
        shutil.move(photo, photos)
    beside = write_spots(tmp_path / "elsewhere", photos=2, seed=1)
    data, _ = opened(train=str(spots), val=str(beside), folder=str(photos))
    assert data.val.photo_path(0).parent == beside.parent
    data, _ = opened(train=str(spots), val=str(spots), folder=str(photos))
    assert data.val.photo_path(0).parent == photos


def test_other_keypoints_to_measure_on_are_refused(spots, other):
    error = failure(InputError, train=str(spots), val=str(other))
    assert error.exit_code == ExitCode.INPUT
    assert error.message == (
        "'spots' to measure on has 2 keypoints, 'spots' to learn from 3: keypoint 3 is missing"
        " there and middle_spot here"
    )
    assert error.hint == "give data of the same keypoints with --val"


def test_the_val_split_of_a_data_set_file_is_measured_on(spots):
    data, notes = opened(train=write_toml(spots.parent, "train", "val"))
    assert (data.people.name, data.val.name) == ("my train", "my val")
    assert notes == []


def test_splits_may_have_other_names(spots):
    file = write_toml(spots.parent, "train", "test")
    data, notes = opened(train=file, val_split="test")
    assert data.val.name == "my test"
    assert notes == []


def test_a_data_set_file_without_a_val_split_is_trained_on_without_measuring(spots):
    file = write_toml(spots.parent, "train")
    data, notes = opened(train=file)
    assert (len(data.people), data.val) == (3, None)
    assert notes == [f"nothing is measured: {file} has no 'val', only train{WITHOUT}"]


def test_a_split_that_was_named_as_val_must_be_there(spots):
    file = write_toml(spots.parent, "train")
    error = failure(NoSplitError, train=file, val=file)
    assert error.message == f"{file} has no 'val', only train"


def test_a_val_split_that_is_there_but_broken_is_not_left_out(spots):
    file = write_toml(spots.parent, "train")
    toml = Path(file)
    toml.write_text(toml.read_text() + '\nval = {annotations = "val.json"}')
    labels = json.loads(spots.read_text())
    labels["annotations"][0]["keypoints"] = [1, 2]
    (spots.parent / "val.json").write_text(json.dumps(labels))
    error = failure(InputError, train=file)
    assert not isinstance(error, NoSplitError)
    assert "val.json" in error.message


@pytest.mark.parametrize("name", ["spots.JSON", "spots.Json"])
def test_a_json_file_is_one_split_in_any_case(spots, name):
    file = spots.rename(spots.with_name(name))
    data, notes = opened(train=str(file))
    assert data.val is None
    assert "a .json file is one split" in notes[0]


def test_it_is_told_where_the_photos_to_measure_on_lie(spots, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(spots.parent, elsewhere)
    notes = []
    config = DataConfig(train=str(spots), val=str(spots), folder=str(elsewhere))
    data = open_training_data(config, notes.append)
    assert (data.people.folder, data.val.folder) == (elsewhere, spots.parent)
    assert f"the photos to measure on are those in '{spots.parent}'" in notes


def test_coco_without_its_val_split_is_trained_on_without_measuring(spots, tmp_path):
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    labels = json.loads(spots.read_text())
    names = [f"keypoint_{number}" for number in range(17)]
    labels["categories"][0] |= {"keypoints": names}
    for person in labels["annotations"]:
        person["keypoints"] = [30, 30, 2] * 17
    (root / "annotations" / "person_keypoints_train2017.json").write_text(json.dumps(labels))
    shutil.copytree(spots.parent, root / "train2017")
    data, notes = opened(train="coco", folder=str(root))
    assert data.people.schema.name == "coco17"
    assert data.val is None
    assert len(notes) == 1
    assert "person_keypoints_val2017.json' is missing" in notes[0]


# ---------------------------------------------------------------- photos held out


def test_a_share_of_the_photos_is_measured_on_and_not_learnt_from(tmp_path):
    spots = write_spots(tmp_path / "spots", photos=10)
    notes = []
    config = DataConfig(train=str(spots), val="20%")
    data = open_training_data(config, notes.append, seed=3)
    assert data.held_out
    assert (len(data.people), len(data.val)) == (8, 2)
    assert not set(data.people.photos) & set(data.val.photos)
    assert data.val.photo_path(0).is_file()
    assert (data.people.name, data.val.name) == ("spots", "20% of spots")
    assert notes[-1] == (
        "20% of spots: 2 photos with 2 people are held out to measure on, drawn by seed 3"
    )
    again = open_training_data(config, seed=3)
    assert (again.people.photos, again.val.photos) == (data.people.photos, data.val.photos)
    assert open_training_data(config, seed=4).val.photos != data.val.photos


def test_a_share_is_held_out_where_there_is_a_val_split_too(spots):
    data, notes = opened(train=write_toml(spots.parent, "train", "val"), val="40%")
    assert (len(data.people), len(data.val)) == (2, 1)
    assert (data.val.name, notes) == ("40% of my train", [])


def test_photos_held_out_are_left_out_of_further_data_sets(spots, tmp_path):
    more = write_spots(tmp_path / "more", photos=4, seed=1)
    notes = []
    config = DataConfig(train=str(spots), val="40%", extra=(str(more), str(spots)))
    data = open_training_data(config, notes.append)
    assert (len(data.people), len(data.val)) == (2 + 4 + 2, 1)
    held = data.val.photo_path(0).resolve()
    assert held not in {data.people.photo_path(i) for i in range(len(data.people.photos))}
    assert notes[-1] == "1 photos of spots are among them and left out of it"


def test_one_photo_is_too_few_to_hold_some_out(tmp_path):
    error = failure(InputError, train=str(write_spots(tmp_path, photos=1)), val="10%")
    assert error.message == (
        "'spots' has 1 photos with labelled people, expected 2 or more to hold 10% of them out"
    )


# ---------------------------------------------------------------- the whole run


def test_a_run_from_its_configuration_alone(spots, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(training_data, "train", lambda *given: calls.append(given) or "result")
    config = configure(spots)
    said = []
    result = training_data.train_in_folder(
        config, tmp_path / "run", device="cpu", on_event=said.append
    )
    assert result == "result"
    ((given, data, place, on_event),) = calls
    assert given is config
    assert len(data.people) == 3
    assert (place.folder.path, place.device, place.resume) == (tmp_path / "run", "cpu", False)
    assert on_event == said.append
    assert any("3 keypoints" in line for line in said)
    with pytest.raises(InputError, match="holds no state to resume"):
        training_data.train_in_folder(config, tmp_path / "run", resume=True)
