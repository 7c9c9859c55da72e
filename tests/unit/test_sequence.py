import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hrnet_cli.errors import InputError
from hrnet_cli.sources import Span
from hrnet_cli.sources.plan import Photo
from hrnet_cli.sources.sequence import NumberedPictures, open_sequence
from hrnet_cli.video_job import damage_words
from videos import SIZE_WH, number_in, numbered_picture


def pictures(folder: Path, count: int, broken=(), size_wh=SIZE_WH) -> list[Photo]:
    photos = []
    for number in range(count):
        path = folder / f"{number:04d}.png"
        Image.fromarray(numbered_picture(number, size_wh)).save(path)
        if number in broken:
            path.write_bytes(path.read_bytes()[:60])
        photos.append(Photo(path, f"seq/{path.name}", path.name))
    return photos


def opened(photos, span=None, fps=Fraction(30000, 1001), problems=None, **options):
    problems = problems if problems is not None else []
    return open_sequence(
        NumberedPictures(photos, "seq", "seq", fps),
        span or Span(),
        on_problem=lambda source, error: problems.append((source, error.message)),
        **options,
    )


def test_pictures_are_frames_of_a_fixed_rate(tmp_path):
    source = opened(pictures(tmp_path, 12))
    frames = list(source.frames())
    assert [number_in(frame.image_HW3) for frame in frames] == list(range(12))
    assert [frame.index for frame in frames] == [frame.pts for frame in frames] == list(range(12))
    assert [frame.time_s for frame in frames] == [
        float(n * Fraction(1001, 30000)) for n in range(12)
    ]
    assert {frame.time_base for frame in frames} == {Fraction(1001, 30000)}
    assert {(frame.source, frame.name) for frame in frames} == {("seq", "seq")}
    info = source.info
    assert (info.size_wh, info.frames, info.rate) == (SIZE_WH, 12, Fraction(30000, 1001))
    assert not info.live


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        (Span(0.5), range(5, 20)),
        (Span(0.5, 1.0), range(5, 10)),
        (Span(every=6), [0, 6, 12, 18]),
        (Span(0.3, None, 4, 2), [3, 7]),
    ],
)
@pytest.mark.parametrize("skip", [0, 1, 99])
def test_spans_and_skipping(tmp_path, span, expected, skip):
    source = opened(pictures(tmp_path, 20), span, Fraction(10))
    assert source.info.frames == len(expected)
    found = [number_in(frame.image_HW3) for frame in source.frames(skip=skip)]
    assert found == list(expected)[skip:]


def test_a_broken_picture_is_reported_and_leaves_a_gap(tmp_path):
    problems = []
    source = opened(pictures(tmp_path, 8, broken=(0, 3)), problems=problems)
    for skip, expected in ((0, [1, 2, 4, 5, 6, 7]), (2, [4, 5, 6, 7])):
        problems.clear()
        frames = list(source.frames(skip=skip))
        assert [frame.index for frame in frames] == expected
        assert [number_in(frame.image_HW3) for frame in frames] == expected
        assert [name for name, _ in problems] == ["seq/0000.png", "seq/0003.png"]
        assert source.damage.broken_packets == 2


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["img_98", "img_100"], ""),  # two may be steps of two
        (["img_97", "img_98", "img_100"], "number 99 is missing among its pictures"),
        (["a8", "a9", "a12", "a15"], "4 numbers are missing among its pictures, the first is 10"),
        (["0", "10", "20", "50"], "2 numbers are missing among its pictures, the first is 30"),
        # Numbers that are no count, of two takes, or none at all.
        (["12_00_03_137", "12_00_03_171", "12_00_04_204"], ""),
        (["a_1", "a_2", "b_7", "b_8"], ""),
        (["cam1", "cam1b"], ""),
        (["one", "two"], ""),
        (["v1_001_left", "v1_002_left", "v1_003_left"], ""),
    ],
)
def test_missing_numbers_are_told(tmp_path, names, words):
    (picture,) = pictures(tmp_path, 1)
    paths = [picture.path.rename(tmp_path / f"{names[0]}.png")]
    paths += [Path(shutil.copy(paths[0], tmp_path / f"{name}.png")) for name in names[1:]]
    source = opened([Photo(path, str(path), path.name) for path in paths])
    frames = list(source.frames())
    assert [frame.index for frame in frames] == list(range(len(names)))
    told = damage_words(source, len(frames))
    assert (told[0].split(":")[0] if told else "") == words


def test_one_broken_picture_is_told_once(tmp_path):
    source = opened(pictures(tmp_path, 4, broken=(2,)))
    frames = list(source.frames())
    assert damage_words(source, len(frames)) == ["1 piece of it is broken and was left out"]


def test_stopping_at_a_broken_picture(tmp_path):
    def stop(source, error):
        raise error

    numbered = NumberedPictures(pictures(tmp_path, 4, broken=(2,)), "seq", "seq", Fraction(5))
    source = open_sequence(numbered, Span(), on_problem=stop)
    frames = source.frames()
    assert [next(frames).index, next(frames).index] == [0, 1]
    with pytest.raises(InputError, match=r"0002\.png"):
        next(frames)


def test_pictures_of_other_sizes_are_fitted_into_the_first(tmp_path):
    photos = pictures(tmp_path, 3)
    Image.fromarray(numbered_picture(1, (64, 96))).save(photos[1].path)
    source = opened(photos)
    frames = list(source.frames())
    assert {frame.size_wh for frame in frames} == {SIZE_WH}
    assert number_in(frames[1].image_HW3[:, 16:48]) == 1
    assert not frames[1].image_HW3[:, :15].any()
    assert source.damage.resized == 1


def test_orientation_is_applied(tmp_path):
    (photo,) = pictures(tmp_path, 1)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(numbered_picture(5))).save(photo.path, exif=exif)
    (frame,) = opened([photo]).frames()
    assert (number_in(frame.image_HW3), frame.orientation) == (5, 6)


def test_nothing_that_can_be_read_is_an_error(tmp_path):
    with pytest.raises(InputError, match="none of the 3 pictures of 'seq' can be read"):
        opened(pictures(tmp_path, 3, broken=(0, 1, 2)))
    with pytest.raises(InputError, match="none of the 3 pictures"):
        opened(pictures(tmp_path, 3), max_pixels=10)


def test_a_span_behind_the_end_is_an_error(tmp_path):
    source = opened(pictures(tmp_path, 5), Span(9), Fraction(5))
    with pytest.raises(InputError, match=r"5 pictures of 'seq' last 1 s; none is in the wanted"):
        list(source.frames())


def test_closing_ends_the_frames(tmp_path):
    source = opened(pictures(tmp_path, 12))
    frames = source.frames()
    next(frames)
    source.close()
    assert len(list(frames)) <= 1
