"""From what the user names to the photos that are read, and reading them in order."""

import os
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image

from hrnet_cli.errors import ExitCode, InputError
from hrnet_cli.images import write_image
from hrnet_cli.sources import photos as photos_module
from hrnet_cli.sources.photos import read_frames
from hrnet_cli.sources.plan import Photo, SourcePlan, plan_sources
from hrnet_cli.structures import Frame


@pytest.fixture(autouse=True)
def _in_folder(tmp_path, monkeypatch):
    """Relative paths start from an empty folder."""
    monkeypatch.chdir(tmp_path)


def touch(*names: str) -> None:
    """Make empty files: planning looks at names only."""
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def paths(plan: SourcePlan) -> list[str]:
    return [str(photo.path) for photo in plan.photos]


def names(plan: SourcePlan) -> list[str]:
    return [photo.name for photo in plan.photos]


def videos(plan: SourcePlan) -> list[tuple[str, str]]:
    return [(video.source, video.name) for video in plan.videos]


def problem(source: str, **options) -> InputError:
    """Return the one problem of a source that gives no photos."""
    plan = plan_sources([source], **options)
    assert plan.photos == ()
    (error,) = plan.problems
    assert error.exit_code == ExitCode.INPUT
    return error


def test_a_file_is_read_under_its_own_name_whatever_its_suffix():
    touch("a/photo.JPG")
    Image.new("RGB", (4, 3)).save("a/scan", "PNG")
    plan = plan_sources(["a/photo.JPG", "a/scan"])
    assert plan.photos == (
        Photo(Path("a/photo.JPG"), "a/photo.JPG", "photo.JPG"),
        Photo(Path("a/scan"), "a/scan", "scan"),
    )
    assert (plan.skipped, plan.problems) == ((), ())


def test_files_keep_the_order_they_were_named_in():
    touch("b.jpg", "a.jpg")
    assert paths(plan_sources(["b.jpg", "a.jpg"])) == ["b.jpg", "a.jpg"]


def test_folders_are_sorted_with_numbers_by_value():
    touch(*(f"set/photo{number}.jpg" for number in (10, 2, 1, 100)), "set/photo.jpg")
    plan = plan_sources(["set"])
    assert names(plan) == ["photo1.jpg", "photo2.jpg", "photo10.jpg", "photo100.jpg", "photo.jpg"]
    assert paths(plan)[0] == "set/photo1.jpg"
    assert plan.photos[0].source == "set/photo1.jpg"


def test_what_is_no_picture_is_told_before_anything_is_loaded():
    Path("script.py").write_text("import this\n")
    Path("page").write_text("<!doctype html>")
    Path("cut").write_bytes(b"\x89PNG\r\n\x1a\n")
    plan = plan_sources(["script.py", "page", "cut"])
    assert [error.message for error in plan.problems] == [
        "photo 'script.py': the file is no picture but text",
        "photo 'page': the file is no picture but a web page",
        "photo 'cut': the file starts like a PNG, but is damaged or of a kind that cannot be read",
    ]
    assert not plan.photos


def test_digits_of_other_scripts_are_sorted_too():
    # "²" is a digit that int() refuses.
    touch("set/x².jpg", "set/x٣.jpg", "set/x2.jpg")
    assert sorted(names(plan_sources(["set"]))) == sorted(["x².jpg", "x٣.jpg", "x2.jpg"])


def test_hidden_files_and_folders_are_left_out():
    touch("set/a.jpg", "set/.hidden.jpg", "set/.cache/b.jpg", "set/.DS_Store")
    plan = plan_sources(["set"], recursive=True)
    assert names(plan) == ["a.jpg"]
    assert plan.skipped == ()


def test_folders_below_are_read_only_when_asked_for():
    touch("set/a.jpg", "set/sub/deep/b.jpg")
    assert names(plan_sources(["set"])) == ["a.jpg"]
    assert names(plan_sources(["set"], recursive=True)) == ["a.jpg", "sub/deep/b.jpg"]


def test_the_output_folder_is_no_source():
    touch("a.jpg", "hrnet-out/a.jpg", "hrnet-out/sub/b.jpg")
    out = Path("hrnet-out")
    assert names(plan_sources(["."], recursive=True, exclude=out)) == ["a.jpg"]
    assert names(plan_sources(["**/*.jpg"], exclude=out)) == ["a.jpg"]
    # Named itself it is read: the user means it.
    assert names(plan_sources(["hrnet-out"], exclude=out)) == ["a.jpg"]
    assert names(plan_sources(["hrnet-out/*.jpg"], exclude=out)) == ["a.jpg"]


@pytest.mark.parametrize("source", [".", "*.jpg", "**/*.jpg"])
def test_an_output_folder_above_the_photos_hides_none(source):
    touch("a.jpg")
    assert names(plan_sources([source], exclude=Path())) == ["a.jpg"]


def test_a_link_back_up_is_no_endless_loop():
    touch("set/a.jpg")
    Path("set/up").symlink_to(Path("set").resolve())
    plan = plan_sources(["set"], recursive=True)
    assert (names(plan), plan.skipped) == (["a.jpg"], (str(Path("set/up")),))
    assert plan_sources(["set"]).skipped == ()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_are_never_opened():
    touch("in/a.jpg")
    for name in ("in/b.jpg", "in/c.gif", "in/d.mp4", "alone"):
        os.mkfifo(name)
    for source in ("in", "in/*.jpg"):
        assert paths(plan_sources([source])) == [str(Path("in/a.jpg"))]
        assert plan_sources([source]).videos == ()
    assert plan_sources(["in"]).skipped == tuple(
        str(Path("in", name)) for name in ("b.jpg", "c.gif", "d.mp4")
    )
    for source in ("alone", "in/b.jpg", "in/d.mp4"):
        error = problem(source)
        assert error.message == f"'{source}' is a pipe, socket or device, expected a file"
        assert "camera:0" in error.hint


def test_unknown_suffixes_in_a_folder_are_named():
    touch("set/a.jpg", "set/notes.txt", "set/clip.mp4", "set/Makefile")
    plan = plan_sources(["set"])
    assert names(plan) == ["a.jpg"]
    assert videos(plan) == [("set/clip.mp4", "clip")]
    assert plan.skipped == ("set/Makefile", "set/notes.txt")
    assert plan.problems == ()


@pytest.mark.parametrize("recursive", [False, True])
@pytest.mark.parametrize("folders", [False, True])
def test_a_folder_without_photos_is_a_problem(recursive, folders):
    touch("set/notes.txt", "set/more.txt")
    if folders:
        Path("set/below").mkdir()
    error = problem("set", recursive=recursive)
    assert error.message.startswith("folder 'set' holds no photos or videos (.jpg .jpeg ")
    assert error.message.endswith("); it holds 2 other files")
    helps = folders and not recursive
    assert error.hint == ("add --recursive to look into the folders below it" if helps else "")


def test_globs_are_sorted_and_keep_the_folders_behind_their_fixed_part():
    touch("set/x/2.jpg", "set/x/10.jpg", "set/y/1.png", "set/notes.txt")
    plan = plan_sources(["set/*/*"])
    assert names(plan) == ["x/2.jpg", "x/10.jpg", "y/1.png"]
    assert paths(plan)[0] == "set/x/2.jpg"


def test_two_stars_reach_every_depth():
    touch("set/a.jpg", "set/x/b.jpg", "set/x/y/c.jpg", "set/x/y/notes.txt")
    plan = plan_sources(["set/**/*.jpg"])
    assert sorted(names(plan)) == ["a.jpg", "x/b.jpg", "x/y/c.jpg"]


def test_absolute_globs_work(tmp_path):
    touch("set/a.jpg")
    assert names(plan_sources([f"{tmp_path}/s*/a.jpg"])) == ["set/a.jpg"]


def test_globs_name_what_is_no_photo():
    touch("set/a.jpg", "set/a.txt")
    assert plan_sources(["set/a.*"]).skipped == ("set/a.txt",)


def test_a_glob_without_a_match_is_a_problem():
    error = problem("set/*.jpg")
    assert error.message == "no file matches 'set/*.jpg'"
    assert error.hint == "use ** to look into sub-folders"


def test_a_file_with_a_star_or_bracket_in_its_name_is_that_file():
    touch("photo[1].jpg", "photo1.jpg")
    assert paths(plan_sources(["photo[1].jpg"])) == ["photo[1].jpg"]


def test_a_list_names_paths_line_by_line():
    touch("a.jpg", "b c.jpg", "#d.jpg", "set/e.jpg")
    Path("list.txt").write_text("# comment\n\na.jpg\r\n  b c.jpg  \nset\n./#d.jpg\n", "utf-8")
    plan = plan_sources(["@list.txt"])
    assert paths(plan) == ["a.jpg", "b c.jpg", "set/e.jpg", "#d.jpg"]


def test_a_list_written_by_a_windows_editor_is_read():
    touch("ä.jpg")
    Path("list.txt").write_text("ä.jpg\n", encoding="utf-8-sig")
    assert paths(plan_sources(["@list.txt"])) == ["ä.jpg"]


def test_a_bad_line_of_a_list_costs_only_itself():
    touch("a.jpg")
    Path("list.txt").write_text("gone.jpg\na.jpg\n")
    plan = plan_sources(["@list.txt"])
    assert paths(plan) == ["a.jpg"]
    assert [error.message for error in plan.problems] == ["'gone.jpg' does not exist"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file or directory"), (b"caf\xe9.jpg\n", "it is not UTF-8 text")],
)
def test_a_list_that_cannot_be_read_is_named(content, reason):
    if content is not None:
        Path("list.txt").write_bytes(content)
    error = problem("@list.txt")
    assert error.message == f"list 'list.txt' cannot be read: {reason}"
    assert error.hint == "expected one photo path a line"


def test_a_list_larger_than_the_memory_is_named(monkeypatch):
    def read_endlessly(*_, **__):
        raise MemoryError

    touch("list.txt")
    monkeypatch.setattr(Path, "read_text", read_endlessly)
    reason = "cannot be read: it needs more memory than is free"
    assert problem("@list.txt").message == f"list 'list.txt' {reason}"


def test_a_dash_stands_for_the_lines_of_standard_input():
    touch("a.jpg", "b.jpg", "c.jpg")
    error = problem("-", stdin=iter(["a.jpg\n", "PK\x03\x04\0\0\n"]))
    assert "standard input cannot be read: it is not UTF-8 text" in error.message
    plan = plan_sources(["c.jpg", "-"], stdin=iter(["a.jpg\n", "\n", "# no\n", "b.jpg"]))
    assert paths(plan) == ["c.jpg", "a.jpg", "b.jpg"]


def test_standard_input_that_is_no_text_is_named(tmp_path):
    (tmp_path / "input").write_bytes(b"caf\xe9.jpg\n")
    with Path("input").open(encoding="utf-8") as stdin:
        error = problem("-", stdin=stdin)
    assert error.message == "standard input cannot be read: it is not UTF-8 text"


def test_a_photo_named_twice_is_read_once(tmp_path):
    touch("set/a.jpg", "set/b.jpg")
    twice = ["set/b.jpg", "set", f"{tmp_path}/set/a.jpg", "set/../set/b.jpg", "set/*.jpg"]
    assert paths(plan_sources(twice)) == ["set/b.jpg", "set/a.jpg"]


def test_equal_names_from_several_folders_never_collide():
    touch("one/a.jpg", "two/a.jpg", "two/b.jpg")
    assert names(plan_sources(["one", "two"])) == ["one/a.jpg", "two/a.jpg", "b.jpg"]


def test_equal_names_take_as_many_folders_as_they_need():
    touch("x/same/a.jpg", "y/same/a.jpg")
    assert names(plan_sources(["x/same/a.jpg", "y/same"])) == ["x/same/a.jpg", "y/same/a.jpg"]


def test_names_that_differ_only_in_case_never_collide():
    # On macOS and Windows both would be written to one file.
    touch("one/a.jpg", "two/A.JPG")
    found = names(plan_sources(["one", "two"]))
    assert found == ["one/a.jpg", "two/A.JPG"]


def test_photos_of_one_folder_that_differ_only_in_case_are_numbered():
    touch("set/a.jpg", "set/a.JPG", "set/b.jpg")
    if len(list(Path("set").iterdir())) < 3:
        pytest.skip("this file system ignores case")
    assert names(plan_sources(["set"])) == ["a-1.JPG", "a-2.jpg", "b.jpg"]
    touch("set/a-1.jpg", "set/a-2.jpg")
    found = names(plan_sources(["set"]))
    assert len({name.casefold() for name in found}) == 5
    assert not any("/" in name for name in found)


@pytest.mark.parametrize("source", ["../set/a.jpg", "../set", "../set/*.jpg", "*/../set/*.jpg"])
def test_names_stay_below_the_output_folder(source, tmp_path, monkeypatch):
    touch("set/a.jpg", "work/b.jpg", "work/set/a.jpg", "work/other/c.jpg")
    monkeypatch.chdir(tmp_path / "work")
    plan = plan_sources([source, str(tmp_path / "work/b.jpg"), "set/a.jpg"])
    assert plan.problems == ()
    assert len({*names(plan)}) == len(plan.photos) >= 2
    for name in names(plan):
        assert not PurePosixPath(name).is_absolute()
        assert ".." not in PurePosixPath(name).parts


@pytest.mark.parametrize(
    ("address", "source", "name"),
    [
        ("camera:0", "camera:0", "camera-0"),
        ("rtsp://me:secret@host/stream?x=1", "rtsp://host/stream?x=1", "rtsp-host-stream-x-1"),
        ("https://host/../../clip.mp4", "https://host/../../clip.mp4", "https-host-..-..-clip.mp4"),
        ("HTTP://host/x", "HTTP://host/x", "HTTP-host-x"),
        ("rtsp://admin:p@ss@cam/1", "rtsp://cam/1", "rtsp-cam-1"),
        ("http://cam/a@b.mp4", "http://cam/a@b.mp4", "http-cam-a-b.mp4"),
        (
            "rtsp://cam/s?user=a&password=secret&n=1",
            "rtsp://cam/s?user=a&password=***&n=1",
            "rtsp-cam-s-user-a-password-n-1",
        ),
    ],
)
def test_cameras_and_streams_have_names_without_passwords_and_folders(address, source, name):
    (video,) = plan_sources([address]).videos
    assert (video.address, video.source, video.name) == (address, source, name)
    assert video.path is None


def test_videos_are_told_by_their_suffix_and_named_without_it():
    touch("a/clip.mp4", "b/clip.MOV", "a/clip.mkv", "b/deep/other.name.webm", "photo.jpg")
    plan = plan_sources(["a/clip.mp4", "photo.jpg", "b", "a/clip.mkv", "a"], recursive=True)
    assert names(plan) == ["photo.jpg"]
    assert videos(plan) == [
        ("a/clip.mp4", "a/clip-1"),
        ("b/clip.MOV", "b/clip"),
        ("b/deep/other.name.webm", "deep/other.name"),
        ("a/clip.mkv", "a/clip-2"),
    ]


def test_a_gif_of_several_pictures_is_a_video():
    pictures = [Image.new("RGB", (12, 8), colour) for colour in ("red", "blue")]
    Path("set").mkdir()
    pictures[0].save("set/still.gif")
    pictures[0].save("set/moving.gif", save_all=True, append_images=pictures[1:])
    moving = Path("set/moving.gif").read_bytes()
    Path("set/cut.gif").write_bytes(moving[: len(moving) // 2])
    Path("set/text.gif").write_text("no picture")
    plan = plan_sources(["set"])
    assert videos(plan) == [("set/moving.gif", "moving")]
    assert [photo.name for photo in plan.photos] == ["cut.gif", "still.gif", "text.gif"]
    assert videos(plan_sources(["set/moving.gif"])) == [("set/moving.gif", "moving")]
    assert videos(plan_sources(["set/*.gif"])) == [("set/moving.gif", "moving")]
    assert [photo.name for photo in plan_sources(["set/still.gif"]).photos] == ["still.gif"]


def test_the_records_of_photos_and_of_a_video_have_different_names(tmp_path):
    touch("poses.mp4", "photo.jpg")
    assert videos(plan_sources(["poses.mp4"])) == [("poses.mp4", "poses")]
    ((_, name),) = videos(plan_sources(["poses.mp4", "photo.jpg"]))
    assert name == f"{tmp_path.name}/poses"


def test_numbered_pictures_can_make_up_a_video():
    touch("run/2.png", "run/10.png", "more/1.jpg", "clip.mp4")
    plan = plan_sources(["run", "more", "clip.mp4"], sequences=True)
    assert plan.photos == ()
    assert videos(plan) == [("clip.mp4", "clip"), ("run", "run"), ("more", "more")]
    assert [picture.source for picture in plan.videos[1].pictures] == ["run/2.png", "run/10.png"]


def test_pictures_that_a_shell_or_a_list_names_one_by_one_are_one_video():
    touch("run/2.png", "run/10.png", "run/30.png", "more/1.jpg")
    Path("list.txt").write_text("run/10.png\nrun/30.png\n")
    for sources, names in (
        (["run/2.png", "run/10.png", "run/30.png"], ["run/2.png", "run/10.png", "run/30.png"]),
        (["run/2*.png", "@list.txt", "run/10.png"], ["run/2.png", "run/10.png", "run/30.png"]),
    ):
        (video,) = plan_sources(sources, sequences=True).videos
        assert [picture.source for picture in video.pictures] == names
    plan = plan_sources(["run/2.png", "more/1.jpg", "run/10.png"], sequences=True)
    assert [len(video.pictures) for video in plan.videos] == [2, 1]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
def test_shards_one_after_another_are_the_whole(count):
    touch(*(f"{number}.jpg" for number in range(10)), *(f"{number}.mp4" for number in range(5)))
    plan = plan_sources(["."])
    parts = [plan.shard(number, count) for number in range(1, count + 1)]
    assert sum((part.photos for part in parts), ()) == plan.photos
    assert sum((part.videos for part in parts), ()) == plan.videos
    assert max(len(part.photos) for part in parts) - min(len(part.photos) for part in parts) <= 1


def test_a_missing_file_is_named(tmp_path):
    error = problem("gone.jpg")
    assert error.message == "'gone.jpg' does not exist"
    assert error.hint == f"paths start from the current folder, {tmp_path}"


@pytest.mark.parametrize("source", ["x" * 300 + ".jpg", "x" * 300 + "/*.jpg", "a\0b.jpg"])
def test_a_path_the_system_refuses_is_a_problem_not_a_crash(source):
    assert source[:2] in problem(source).message


def test_a_folder_without_permission_is_named(monkeypatch):
    touch("set/a.jpg")

    def refuse(_self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert problem("set").message == "folder 'set' cannot be read: Permission denied"


def test_no_sources_give_no_photos():
    assert plan_sources([]) == SourcePlan(())


# Reading ------------------------------------------------------------------------------------------


def make_photos(count: int) -> list[Photo]:
    """Write photos whose every pixel is the number of the photo."""
    photos = []
    for number in range(count):
        path = Path(f"{number}.png")
        write_image(path, np.full((4, 6, 3), number, np.uint8))
        photos.append(Photo(path, f"given/{number}.png", f"named/{number}.png"))
    return photos


def read(photos: list[Photo], **options) -> tuple[list[Frame], list[tuple[str, InputError]]]:
    problems: list[tuple[str, InputError]] = []
    frames = read_frames(photos, on_problem=lambda *args: problems.append(args), **options)
    return list(frames), problems


def test_frames_come_in_order_also_when_the_first_is_slow(monkeypatch):
    real = photos_module.read_image

    def slow_first(path, max_pixels):
        time.sleep(0.1 if path.name == "0.png" else 0)
        return real(path, max_pixels)

    monkeypatch.setattr(photos_module, "read_image", slow_first)
    frames, problems = read(make_photos(9))
    assert problems == []
    assert [int(frame.image_HW3[0, 0, 0]) for frame in frames] == list(range(9))
    assert frames[3].source == "given/3.png"
    assert frames[3].name == "named/3.png"
    assert (frames[3].index, frames[3].time_s, frames[3].orientation) == (0, None, 1)


@pytest.mark.parametrize(("processors", "most"), [(1, 4), (8, 8), (128, 16)])
def test_only_a_few_photos_are_decoded_ahead(monkeypatch, processors, most):
    monkeypatch.setattr(photos_module, "processors", lambda: processors)
    asked = 0

    def photos() -> Iterator[Photo]:
        nonlocal asked
        for photo in made:
            asked += 1
            yield photo

    made = make_photos(20)
    frames = read_frames(photos(), on_problem=lambda *_: None)
    for taken in range(1, 21):
        next(frames)
        assert asked == min(20, taken - 1 + most)
    assert next(frames, None) is None


def test_a_photo_that_cannot_be_read_is_reported_and_the_rest_goes_on():
    photos = make_photos(3)
    Path("1.png").write_bytes(b"")
    frames, ((source, error),) = read(photos)
    assert [frame.source for frame in frames] == ["given/0.png", "given/2.png"]
    assert source == "given/1.png"
    assert error.message == "photo '1.png': the file is empty (0 bytes)"


def test_photos_over_the_pixel_limit_are_reported():
    frames, ((source, error),) = read(make_photos(1), max_pixels=23)
    assert frames == []
    assert source == "given/0.png"
    assert "is 6x4, 24 pixels; the limit is 23" in error.message


@pytest.mark.parametrize("suffix", [".tif", ".png", ".webp"])
def test_of_several_pictures_in_a_file_the_first_is_taken_and_it_is_said(suffix):
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    first.save(f"several{suffix}", save_all=True, append_images=[second])
    first.save(f"one{suffix}")
    plan = plan_sources([f"several{suffix}", f"one{suffix}"])
    said: list[str] = []
    frames = list(read_frames(plan.photos, on_problem=print, on_warning=said.append))
    assert [frame.image_HW3[4, 4].argmax() for frame in frames] == [0, 0]
    assert said == [f"photo 'several{suffix}' has several pictures, the first is taken"]


def test_raising_at_a_problem_stops_and_leaves_no_threads():
    photos = make_photos(3)
    Path("1.png").unlink()

    def stop(_source: str, error: InputError) -> None:
        raise error

    frames = read_frames(photos, on_problem=stop)
    next(frames)
    with pytest.raises(InputError, match=r"photo '1\.png' cannot be opened: No such file"):
        next(frames)
    assert not [t for t in threading.enumerate() if t.name.startswith("read")]


def test_closing_early_leaves_no_threads():
    frames = read_frames(make_photos(9), on_problem=lambda *_: None)
    next(frames)
    assert isinstance(frames, Generator)
    frames.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("read")]


def test_no_photos_give_no_frames():
    assert read([]) == ([], [])


def test_names_that_are_not_utf8_are_read():
    name = os.fsdecode(b"caf\xe9.png")
    try:
        make_photos(1)[0].path.rename(name)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    plan = plan_sources(["."])
    frames, problems = read(list(plan.photos))
    assert [frame.name for frame in frames] == [name]
    assert problems == []
