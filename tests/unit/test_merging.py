"""The parts of a divided run, merged, are the outputs of one run; what is not whole is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from hrnet_cli.config import part_stem
from hrnet_cli.errors import InputError, OutputError
from hrnet_cli.merging import Merged, merge
from hrnet_cli.schema import load_schema
from hrnet_cli.sinks import RunInfo, open_sink
from hrnet_cli.structures import Boxes, Frame, Poses

FORMATS = ("jsonl", "csv", "coco", "angles", "labels")
INFO = RunInfo("model", "detector", keypoint_threshold=0.5)
SCHEMA = load_schema("coco17")


def photo(name, people):
    """Return a photo of a folder ``in`` and so many people, some of whose keypoints are unsure."""
    rng = np.random.default_rng(len(name) + people)
    poses = Poses(
        rng.uniform(0, 60, (people, 17, 2)),
        rng.uniform(0, 1, (people, 17)),
        rng.uniform(0, 1, people),
        Boxes(np.tile([1.5, 2, 30, 40.25], (people, 1)), np.full(people, 0.9)),
        SCHEMA,
    )
    return Frame(np.zeros((48, 64, 3), np.uint8), f"in/{name}", name), poses


# Names that would be equal without their folders, numbers, and photos with nobody.
PHOTOS = [
    photo("a/x.jpg", 0), photo("b/x.jpg", 0), photo("c/x.jpg", 2), photo("000000000139.jpg", 1),
    photo("y.jpg", 3), photo("z.jpg", 0), photo("zz.jpg", 1),
]  # fmt: skip


def write(folder, photos, stem="poses", formats=FORMATS):
    for name in formats:
        sink = open_sink(name, folder, INFO, stem)
        for frame, poses in photos:
            sink.write(frame, poses)
        sink.close()


@pytest.fixture
def parts(tmp_path):
    """Two folders with the parts of a run."""
    folders = [tmp_path / "one", tmp_path / "two"]
    write(folders[0], PHOTOS[:3], part_stem(1, 2))
    write(folders[1], PHOTOS[3:], part_stem(2, 2))
    return folders


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_parts_become_what_one_run_writes(tmp_path, parts):
    write(tmp_path / "whole", PHOTOS)
    # The order in which folders are named does not matter.
    done = merge(parts[::-1], tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    names = ["jsonl", "csv", "coco.json"]
    names = [*(f"poses.{name}" for name in names), "poses_angles.csv", "poses.labels.json"]
    assert done == Merged(2, len(PHOTOS), 0, tuple(tmp_path / "out" / name for name in names))


def test_parquet_is_merged_to_the_same_table(tmp_path):
    table = pytest.importorskip("pyarrow.parquet")
    formats = ("jsonl", "parquet")
    write(tmp_path / "whole", PHOTOS, formats=formats)
    for number, some in ((1, PHOTOS[:3]), (2, PHOTOS[3:])):
        write(tmp_path / "parts", some, part_stem(number, 2), formats)
    merge([tmp_path / "parts"], tmp_path / "out")
    one, other = (table.read_table(tmp_path / f / "poses.parquet") for f in ("whole", "out"))
    assert one.equals(other, check_metadata=True)


def test_labels_are_merged_whatever_folder_the_parts_lie_in(tmp_path):
    for number, some in ((1, PHOTOS[:3]), (2, PHOTOS[3:])):
        folder = tmp_path / "far" / str(number)
        write(folder, some, part_stem(number, 2), ("jsonl", "labels"))
    merge([tmp_path / "far" / "1", tmp_path / "far" / "2"], tmp_path / "out")
    images = json.loads((tmp_path / "out" / "poses.labels.json").read_text())["images"]
    places = [(tmp_path / "out" / image["file_name"]).resolve() for image in images]
    assert places == [Path(frame.source).resolve() for frame, _ in PHOTOS]


def test_yolo_data_sets_are_merged_with_the_links_to_their_photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for frame, _ in PHOTOS:
        Path(frame.source).parent.mkdir(parents=True, exist_ok=True)
        Path(frame.source).write_text(frame.source)
    write(tmp_path / "whole", PHOTOS, formats=("jsonl", "yolo"))
    for number, some in ((1, PHOTOS[:3]), (2, PHOTOS[3:])):
        write(tmp_path / "out", some, part_stem(number, 2), ("jsonl", "yolo"))
    merge([tmp_path / "out"], tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert (tmp_path / "out/yolo/images/a/x.jpg").readlink() == (tmp_path / "in/a/x.jpg").resolve()


def test_a_folder_is_merged_into_itself_and_its_parts_go(tmp_path):
    write(tmp_path / "whole", PHOTOS)
    for number, some in enumerate((PHOTOS[:2], PHOTOS[2:5], PHOTOS[5:]), start=1):
        write(tmp_path / "out", some, part_stem(number, 3))
    (tmp_path / "out" / "clip.jsonl").write_text("of a video")
    done = merge([tmp_path / "out"], tmp_path / "out")
    assert (done.parts, done.photos, done.files) == (3, len(PHOTOS), 0)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole") | {
        "clip.jsonl": b"of a video"
    }


def test_other_files_are_copied_under_their_paths(tmp_path, parts):
    for folder, name in zip(parts, ("clip.mp4", "sub/clip.mp4"), strict=True):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    assert merge(parts, tmp_path / "out").files == 2
    assert (tmp_path / "out" / "clip.mp4").read_text() == "clip.mp4"
    assert (tmp_path / "out" / "sub" / "clip.mp4").read_text() == "sub/clip.mp4"


def test_more_parts_than_photos(tmp_path):
    for number, some in ((2, PHOTOS[:1]), (4, PHOTOS[1:2])):
        write(tmp_path / "parts", some, part_stem(number, 4))
    assert merge([tmp_path / "parts"], tmp_path / "out").photos == 2


def test_parts_in_which_nothing_could_be_read(tmp_path):
    for number in (1, 2):
        write(tmp_path / "parts", [], part_stem(number, 2))
    assert merge([tmp_path / "parts"], tmp_path / "out").photos == 0
    assert json.loads((tmp_path / "out" / "poses.coco.json").read_text()) == []


def remove(parts, name):
    (parts[0] / name).unlink()


def cut(parts, name):
    place = parts[0] / name
    place.write_bytes(place.read_bytes()[:-5])


def replace_by(text):
    return lambda parts, name: (parts[0] / name).write_text(text)


def broken(parts, name):
    (parts[0] / name).mkdir()
    (parts[0] / name / "state.json").touch()


def again(parts, name):
    (parts[1] / name).write_bytes((parts[0] / name).read_bytes())


JSONL, COCO = "poses.shard-1-of-2.jsonl", "poses.shard-1-of-2.coco.json"
LABELS = "poses.shard-1-of-2.labels.json"


@pytest.mark.parametrize(
    ("spoil", "name", "words"),
    [
        (cut, JSONL, r"1-of-2\.jsonl' is cut: the run that wrote it was stopped"),
        (cut, "poses.shard-1-of-2.csv", r"1-of-2\.csv' is cut"),
        (replace_by("what\n"), JSONL, r"1-of-2\.jsonl' line 1 is not readable as JSON"),
        (replace_by("{}\n"), JSONL, "line 1 is no pose record"),
        (remove, JSONL, r"part 1 of 2 is missing"),
        (remove, COCO, r"part 1 of 2 has no poses\.\.\.\.coco\.json, unlike other parts"),
        (replace_by("[]"), COCO, "holds 0 people, its records .* hold 2"),
        (replace_by("{"), COCO, "is no list of COCO results"),
        (replace_by("[1]"), COCO, "is no list of COCO results"),
        (remove, LABELS, r"part 1 of 2 has no poses\.\.\.\.labels\.json, unlike other parts"),
        (replace_by("{"), LABELS, "is no file of labels: Expecting property name"),
        (replace_by("[1]"), LABELS, "is no file of labels: it has no list of 'images'"),
        (replace_by('{"images": [], "annotations": [], "categories": []}'), LABELS,
         "holds 0 people, its records .* hold 2"),
        (replace_by(""), f"{COCO}.part", r"coco\.json\.part' is of a run that was broken"),
        (broken, "clip.resume", r"clip\.resume' is of a run that was broken"),
        (again, JSONL, "part 1 of 2 stands there twice"),
        (replace_by(""), "poses.shard-1-of-3.jsonl", "divided differently are mixed: by 2, 3"),
        (replace_by("other"), "poses.jsonl", "has the name of the records that are joined"),
    ],
)  # fmt: skip
def test_what_is_not_whole_is_refused_before_anything_is_written(
    tmp_path, parts, spoil, name, words
):
    spoil(parts, name)
    with pytest.raises(InputError, match=words):
        merge(parts, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_files_of_one_name_are_refused(tmp_path, parts):
    for folder in parts:
        (folder / "clip.mp4").write_text(str(folder))
    with pytest.raises(InputError, match=r"clip\.mp4' have the same name"):
        merge(parts, tmp_path / "out")


def test_tables_without_records_are_refused(tmp_path, parts):
    for number in (1, 2):
        (parts[number - 1] / f"poses.shard-{number}-of-2.jsonl").unlink()
    with pytest.raises(InputError, match="have no records beside them"):
        merge(parts, tmp_path / "out")


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(InputError, match="nowhere' is no folder"):
        merge([tmp_path / "nowhere"], tmp_path / "out")


def test_nothing_is_overwritten_unasked(tmp_path, parts):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "poses.csv").write_text("precious")
    with pytest.raises(OutputError, match=r"poses\.csv' would be overwritten") as caught:
        merge(parts, tmp_path / "out")
    assert "--overwrite" in caught.value.hint
    assert contents(tmp_path / "out") == {"poses.csv": b"precious"}
    merge(parts, tmp_path / "out", overwrite=True)
    write(tmp_path / "whole", PHOTOS)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
