import errno
import io
import os
import stat
import struct
import threading
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, features

from hrnet_cli import images
from hrnet_cli.errors import ExitCode, InputError, OutputError
from hrnet_cli.images import (
    IMAGE_SUFFIXES,
    encode_image,
    read_header,
    read_image,
    write_bytes_atomic,
    write_image,
)

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.fixture
def corners():
    """A 20x30 picture whose four corners differ, in flat 10-pixel blocks that JPEG keeps."""
    image = np.full((20, 30, 3), 200, np.uint8)
    image[:10, :10], image[:10, 20:], image[10:, :10] = RED, GREEN, BLUE
    return image


def save(path, image, **options):
    Image.fromarray(image).save(path, **options)
    return path


def skip_unless_pillow_knows(suffix):
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow cannot read AVIF, which came with 11.3")


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def with_orientation(value):
    exif = Image.Exif()
    exif[274] = value
    return exif


# What the official EXIF orientations do to a stored picture (EXIF 2.3, table 7).
UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda stored: np.rot90(stored),
}


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".avif"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_pictures_are_turned_upright_unless_told_otherwise(tmp_path, corners, suffix, orientation):
    skip_unless_pillow_knows(suffix)
    path = tmp_path / f"photo{suffix}"
    lossless = {".webp": {"lossless": True}, ".avif": {"quality": 100, "subsampling": "4:4:4"}}
    save(path, corners, exif=with_orientation(orientation), **lossless.get(suffix, {}))
    tolerance = 3 if suffix == ".avif" else 0  # AVIF rounds in YCbCr even at its best quality

    image_HW3, applied = read_image(path)
    assert applied == orientation
    np.testing.assert_allclose(
        image_HW3.astype(int), UPRIGHT[orientation](corners).astype(int), atol=tolerance
    )
    assert image_HW3.flags.c_contiguous
    assert image_HW3.flags.writeable

    stored_HW3, applied = read_image(path, apply_orientation=False)
    assert applied == 1
    np.testing.assert_allclose(stored_HW3.astype(int), corners.astype(int), atol=tolerance)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate"])
def test_compressed_tiffs_are_turned_upright(tmp_path, corners, compression):
    path = tmp_path / "photo.tif"
    save(path, corners, exif=with_orientation(6), compression=compression)
    image_HW3, applied = read_image(path)
    assert applied == 6
    np.testing.assert_array_equal(image_HW3, UPRIGHT[6](corners))
    np.testing.assert_array_equal(read_image(path, apply_orientation=False)[0], corners)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".bmp"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_header_says_what_the_picture_will_be(tmp_path, corners, suffix, orientation):
    path = tmp_path / f"photo{suffix}"
    save(path, corners, exif=with_orientation(orientation))
    assert read_header(path) == (30, 20, 1 if suffix == ".bmp" else orientation)
    assert read_image(path)[1] == read_header(path)[2]


def test_a_png_may_say_behind_its_pixels_how_it_lies(tmp_path, corners):
    path = save(tmp_path / "photo.png", corners, exif=with_orientation(6))
    content = path.read_bytes()
    start, pixels = content.index(b"eXIf") - 4, content.index(b"IDAT") - 4
    path.write_bytes(content[:start] + content[pixels:-12] + content[start:pixels] + content[-12:])
    assert read_header(path) == (30, 20, 6)
    assert read_image(path)[1] == 6


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_jpegs_are_turned_upright(tmp_path, corners, orientation):
    path = tmp_path / "photo.jpg"
    save(path, corners, exif=with_orientation(orientation), quality=100, subsampling=0)
    image_HW3, applied = read_image(path)
    assert applied == orientation
    # Hard edges inside the 8x8 blocks ring by some levels; the corners differ by 55 at least.
    expected = UPRIGHT[orientation](corners).astype(int)
    assert np.abs(image_HW3.astype(int) - expected).max() < 20


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_counts_as_upright(tmp_path, corners, value):
    path = save(tmp_path / "photo.png", corners, exif=with_orientation(value))
    image_HW3, applied = read_image(path)
    assert applied == 1
    np.testing.assert_array_equal(image_HW3, corners)


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\0\x09\x01", b"junk" * 9])
def test_damaged_exif_does_no_harm_and_no_warning_leaks(tmp_path, corners, exif):
    path = save(tmp_path / "photo.png", corners, exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image_HW3, applied = read_image(path)
    assert applied == 1
    np.testing.assert_array_equal(image_HW3, corners)


def ramp(shape, dtype, top):
    return np.linspace(0, top, int(np.prod(shape))).reshape(shape).astype(dtype)


@pytest.mark.parametrize(
    ("mode", "stored", "expected"),
    [
        ("1", np.array([[0, 255]], np.uint8), [[[0] * 3, [255] * 3]]),
        ("L", np.array([[7, 90]], np.uint8), [[[7] * 3, [90] * 3]]),
        ("LA", np.array([[[7, 0], [90, 128]]], np.uint8), [[[7] * 3, [90] * 3]]),
        ("RGBA", np.array([[[1, 2, 3, 0], [4, 5, 6, 128]]], np.uint8), [[[1, 2, 3], [4, 5, 6]]]),
    ],
)
def test_pictures_of_few_channels_or_with_transparency(tmp_path, mode, stored, expected):
    path = tmp_path / "photo.png"
    image = Image.fromarray(stored) if mode != "1" else Image.fromarray(stored).convert("1")
    assert image.mode == mode
    image.save(path)
    image_HW3, _ = read_image(path)
    assert image_HW3.dtype == np.uint8
    assert image_HW3.tolist() == expected


@pytest.mark.parametrize("transparency", [None, 1, bytes([255, 128, 0])])
def test_palette_pictures_with_and_without_transparency(tmp_path, transparency):
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    palette.putpalette([*RED, *GREEN, *BLUE])
    path = tmp_path / "photo.png"
    palette.save(path, **({} if transparency is None else {"transparency": transparency}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image_HW3, _ = read_image(path)
    assert image_HW3.tolist() == [[list(RED), list(GREEN), list(BLUE)]]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_grey_keeps_its_upper_8_bits(tmp_path, suffix):
    grey_HW = ramp((16, 16), np.uint16, 65535)
    path = save(tmp_path / f"photo{suffix}", grey_HW)
    image_HW3, _ = read_image(path)
    np.testing.assert_array_equal(image_HW3, np.repeat(grey_HW[..., None] >> 8, 3, axis=2))


def test_16_bit_grey_pgm(tmp_path):
    path = tmp_path / "photo.pgm"
    path.write_bytes(b"P5 2 1 65535\n" + np.array([256 * 9, 65535], ">u2").tobytes())
    assert read_image(path)[0].tolist() == [[[9] * 3, [255] * 3]]


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bit_colour_keeps_its_upper_8_bits(tmp_path, suffix):
    colour_HW3 = ramp((8, 8, 3), np.uint16, 65535)
    path = tmp_path / f"photo{suffix}"
    path.write_bytes(cv2.imencode(suffix, colour_HW3[..., ::-1])[1].tobytes())
    np.testing.assert_array_equal(read_image(path)[0], colour_HW3 >> 8)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 0.5, 1], [0, 128, 255]),
        ([-3, 100, 255], [0, 100, 255]),
        ([0, 257 * 100, 65535], [0, 100, 255]),
        ([0, 1.2e6, 2e6], [0, 153, 255]),
        ([np.nan, 0.5, 1], [0, 128, 255]),
        ([0, 0, 0], [0, 0, 0]),
    ],
)
def test_floating_point_tiff(tmp_path, values, expected):
    path = save(tmp_path / "photo.tif", np.array([values], np.float32))
    assert read_image(path)[0][0, :, 0].tolist() == expected


def test_32_bit_tiff(tmp_path):
    path = save(tmp_path / "photo.tif", np.array([[0, 257 * 100, 65535]], np.int32))
    assert read_image(path)[0][0, :, 0].tolist() == [0, 100, 255]


@pytest.mark.parametrize("colour", [RED, GREEN, BLUE, (255, 255, 255), (0, 0, 0)])
def test_cmyk_jpeg_has_its_colours_and_not_their_opposites(tmp_path, colour):
    # Pillow writes the inverted values of Adobe's programs, and their marker.
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (16, 16), colour).convert("CMYK").save(path, quality=100)
    pixel = read_image(path)[0][8, 8].astype(int)
    assert np.abs(pixel - colour).max() <= 2  # JPEG rounding


def test_ycbcr_tiff(tmp_path):
    path = tmp_path / "photo.tif"
    Image.new("RGB", (4, 4), (200, 100, 50)).convert("YCbCr").save(path, compression="jpeg")
    assert np.abs(read_image(path)[0][0, 0].astype(int) - (200, 100, 50)).max() <= 2  # rounding


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".tif"])
def test_of_an_animation_the_first_picture_counts(tmp_path, suffix):
    first, second = (Image.new("RGB", (12, 8), colour) for colour in (RED, BLUE))
    path = tmp_path / f"photo{suffix}"
    first.save(path, save_all=True, append_images=[second], lossless=True)
    image_HW3, _ = read_image(path)
    assert (image_HW3 == RED).all()


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_every_listed_suffix_can_be_read(tmp_path, suffix):
    skip_unless_pillow_knows(suffix)
    path = tmp_path / f"photo{suffix}"
    Image.new("L" if suffix == ".pgm" else "1" if suffix == ".pbm" else "RGB", (9, 5)).save(path)
    assert read_image(path)[0].shape == (5, 9, 3)


@pytest.mark.parametrize("size_wh", [(1, 1), (3000, 2), (2, 3000), (70_000, 1)])
def test_extreme_shapes(tmp_path, size_wh):
    width, height = size_wh
    pixels_HW3 = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    path = save(tmp_path / "photo.png", pixels_HW3)
    np.testing.assert_array_equal(read_image(path)[0], pixels_HW3)


def test_a_photo_of_many_strips_is_put_together_right(tmp_path):
    pixels_HW3 = np.random.default_rng(0).integers(0, 256, (517, 613, 3), np.uint8)
    path = save(tmp_path / "photo.bmp", pixels_HW3)
    np.testing.assert_array_equal(read_image(path)[0], pixels_HW3)


def test_names_with_spaces_and_other_scripts(tmp_path, corners):
    path = tmp_path / "mein Büro 写真" / "a b 🏃.png"
    write_image(path, corners)
    np.testing.assert_array_equal(read_image(path)[0], corners)
    assert names_in(path.parent) == [path.name]


def test_the_content_decides_on_the_format(tmp_path, corners):
    path = tmp_path / "really-a-png.jpg"
    save(path, corners, format="PNG")
    np.testing.assert_array_equal(read_image(path)[0], corners)


def refusal(path, *arguments):
    with pytest.raises(InputError) as raised:
        read_image(path, *arguments)
    assert raised.value.exit_code == ExitCode.INPUT
    assert "\n" not in raised.value.message
    return raised.value


def test_missing_files_and_folders(tmp_path):
    missing = tmp_path / "missing.jpg"
    assert refusal(missing).message == (
        f"photo '{missing}' cannot be opened: No such file or directory"
    )
    assert refusal(tmp_path).message == f"photo '{tmp_path}' cannot be opened: it is a folder"
    assert refusal(Path("a\0b.jpg")).message == (
        "photo 'a\\x00b.jpg' cannot be opened: embedded null byte"
    )


def test_no_permission(tmp_path, monkeypatch):
    # Simulated: tests may run as root, who may read everything.
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "open", refuse)
    path = tmp_path / "photo.jpg"
    assert refusal(path).message == f"photo '{path}' cannot be opened: Permission denied"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "the file is empty (0 bytes)"),
        (b"<!DOCTYPE html><html>404</html>", "the file is no picture but a web page"),
        (b"\xef\xbb\xbf\n <HTML>404", "the file is no picture but a web page"),
        (b"%PDF-1.7\n", "the file is no picture but a PDF"),
        (b"PK\x03\x04....", "the file is no picture but a ZIP archive"),
        (b"\x1f\x8b\x08", "the file is no picture but a gzip archive"),
        (b"8BPS\0\1", "the file is a Photoshop document, which cannot be read"),
        (b"\xff\x0a\xfa", "the file is a JPEG XL photo, which cannot be read"),
        (b"<svg xmlns=", "the file is an SVG drawing, which cannot be read"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:12\n",
            "the file is a Git LFS pointer; git lfs pull fetches the photo",
        ),
        (
            b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
            "the file is a HEIC photo, which cannot be read; export it as JPEG",
        ),
        (
            b"\0\0\0\x18ftypavif\0\0\0\0",
            "the file starts like an AVIF, but is damaged or of a kind that cannot be read",
        ),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "the file is no picture but a video"),
        (b"hello, I am text\n", "the file is no picture but text"),
        ("é".encode() * 3000, "the file is no picture but text"),
        (
            b"\x89PNG\r\n\x1a\n\0\0",
            "the file starts like a PNG, but is damaged or of a kind that cannot be read",
        ),
        (b"\x80\x02\xff\x00" * 9, "the file is damaged, or in no picture format that can be read"),
    ],
)
def test_what_is_no_picture_is_said_to_be_what_it_looks_like(tmp_path, content, what):
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    assert refusal(path).message == f"photo '{path}': {what}"


@pytest.mark.parametrize("suffix", [".jpg", ".bmp", ".png", ".gif", ".webp", ".tif", ".jp2"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_there_are_no_partial_pictures(tmp_path, suffix, share):
    noise_HW3 = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = save(tmp_path / f"photo{suffix}", noise_HW3)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert refusal(path).message.startswith(f"photo '{path}': the file ")


def test_a_truncated_photo_is_called_so(tmp_path):
    noise_HW3 = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = save(tmp_path / "photo.bmp", noise_HW3)
    path.write_bytes(path.read_bytes()[:5000])
    error = refusal(path)
    assert error.message == (
        f"photo '{path}': the file is truncated, its end is missing after 5,000 bytes"
    )
    assert error.hint == "copy or download it again"


def test_a_photo_too_large_for_the_memory(tmp_path, corners, monkeypatch):
    path = save(tmp_path / "photo.png", corners)

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(images, "_to_rgb", fail)
    error = refusal(path)
    assert error.message == f"photo '{path}' needs more memory than is free"
    assert error.hint == "make it smaller first"


def test_photos_over_the_pixel_limit_are_refused_before_they_are_decoded(tmp_path):
    path = tmp_path / "photo.png"
    Image.new("1", (300, 200)).save(path)
    assert read_image(path, 60_000)[0].shape == (200, 300, 3)
    error = refusal(path, 59_999)
    assert error.message == f"photo '{path}' is 300x200, 60,000 pixels; the limit is 59,999"
    assert error.hint == "make it smaller, or allow it with --max-megapixels"


def test_the_default_limit_is_200_megapixels(tmp_path):
    # Only the header is read, so that a few bytes claim to be a huge photo.
    path = tmp_path / "photo.pbm"
    path.write_bytes(b"P4 20001 10000\n")
    assert refusal(path).message.endswith(
        "is 20001x10000, 200,010,000 pixels; the limit is 200,000,000"
    )


@pytest.mark.parametrize("width", [9_500, 19_000, 20_001])
def test_headers_are_read_up_to_the_same_limit(tmp_path, width):
    # Pillow alone warns from 89 megapixels on and refuses 179.
    path = tmp_path / "photo.pbm"
    path.write_bytes(f"P4 {width} 10000\n".encode())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_header(path) == ((width, 10_000, 1) if width < 20_000 else None)


def test_what_is_no_picture_has_no_header(tmp_path):
    assert read_header(tmp_path / "missing.jpg") is None
    assert read_header(tmp_path) is None
    (tmp_path / "page.jpg").write_bytes(b"<html>")
    assert read_header(tmp_path / "page.jpg") is None


def header_of_a_png(width, height):
    fields = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + fields
        + struct.pack(">I", zlib.crc32(fields))
        + struct.pack(">I", 4096)
        + b"IDAT"
    )


@pytest.mark.parametrize(
    ("size_wh", "end"),
    [
        # Pillow alone warns from 89 megapixels on and refuses 179.
        ((10_000, 10_000), ": the file is "),
        ((18_000, 10_000), ": the file is "),
        ((60_000, 60_000), " is 60000x60000, 3,600,000,000 pixels; the limit is 200,000,000"),
    ],
)
def test_headers_that_claim_huge_photos_are_no_danger_and_no_warning_leaks(tmp_path, size_wh, end):
    path = tmp_path / "photo.png"
    path.write_bytes(header_of_a_png(*size_wh))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert refusal(path).message.startswith(f"photo '{path}'{end}")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_pillows_own_limit_neither_warns_nor_refuses_and_stays_as_it_was(
    tmp_path, suffix, monkeypatch
):
    path = tmp_path / f"photo{suffix}"
    Image.new("L", (40, 30)).save(path)
    for limit in (1000, 100):  # 1200 pixels: a warning and an error of Pillow's
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert read_image(path)[0].shape == (30, 40, 3)
        assert limit == Image.MAX_IMAGE_PIXELS


def test_reading_on_threads_leaves_the_settings_of_the_process_alone(tmp_path, corners):
    path = save(tmp_path / "photo.png", corners)
    before = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    threads = [
        threading.Thread(target=lambda: [read_image(path) for _ in range(50)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == before


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".TIFF"])
def test_lossless_formats_return_what_was_written(tmp_path, corners, suffix):
    path = tmp_path / f"picture{suffix}"
    write_image(path, corners)
    np.testing.assert_array_equal(read_image(path)[0], corners)


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".webp"])
def test_lossy_formats_keep_the_colours_of_thin_lines(tmp_path, suffix):
    image_HW3 = np.full((64, 64, 3), 128, np.uint8)
    image_HW3[:, 31:33] = (230, 60, 40)
    path = tmp_path / f"picture{suffix}"
    write_image(path, image_HW3)
    # With halved colour resolution, as in WebP by design and in JPEG by default, lines two pixels
    # wide that straddle two samples lose about half their colour: far more than 40 levels.
    tolerance = 90 if suffix == ".webp" else 15
    read_HW3 = read_image(path)[0].astype(int)
    assert np.abs(read_HW3[:, 31:33] - (230, 60, 40)).max() < tolerance


def test_paths_may_be_text(tmp_path):
    write_image(f"{tmp_path}/a.png", np.full((2, 3, 3), 7, np.uint8))
    assert read_image(f"{tmp_path}/a.png")[0].tolist() == [[[7] * 3] * 3] * 2
    with pytest.raises(InputError, match=r"gone\.png' cannot be opened"):
        read_image(f"{tmp_path}/gone.png")


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4)), np.zeros((4, 4), "u1"), np.zeros((4, 4, 3)),
              np.zeros((4, 4, 2), "u1"), np.zeros((0, 0, 3), "u1")],
)  # fmt: skip
def test_what_is_no_8_bit_picture_is_not_written(tmp_path, image):
    with pytest.raises(ValueError, match=r"image: expected \(H, W, 3\) or \(H, W, 4\) uint8, got"):
        write_image(tmp_path / "a.png", image)
    assert names_in(tmp_path) == []


def test_quality_changes_the_size():
    noise_HW3 = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for suffix in (".jpg", ".webp"):
        assert len(encode_image(noise_HW3, suffix, 30)) < 0.7 * len(encode_image(noise_HW3, suffix))


def test_transparent_pictures(corners):
    rgba_HW4 = np.dstack([corners, np.arange(600, dtype=np.uint8).reshape(20, 30) % 251])
    data = encode_image(rgba_HW4, ".png")
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(np.asarray(image), rgba_HW4)


def rejected(suffix, shape=(4, 4, 3)):
    with pytest.raises(OutputError) as raised:
        encode_image(np.zeros(shape, np.uint8), suffix)
    assert raised.value.exit_code == ExitCode.OUTPUT
    return raised.value.message


def test_formats_that_cannot_hold_a_picture():
    assert rejected(".jpg", (4, 4, 4)) == (
        "'.jpg' pictures cannot be transparent, expected one of .png .webp .tif .tiff"
    )
    assert rejected(".xyz") == (
        "pictures cannot be written as '.xyz', expected one of"
        " .jpg .jpeg .png .webp .bmp .tif .tiff"
    )
    assert rejected(".webp", (1, 16384, 3)) == (
        "a picture of 16384x1 pixels does not fit into '.webp', which ends at 16383 pixels a side"
    )
    assert len(encode_image(np.zeros((1, 16383, 3), np.uint8), ".webp")) > 0
    assert len(encode_image(np.zeros((65500, 1, 3), np.uint8), ".jpg")) > 0
    assert "65500" in rejected(".jpg", (65501, 1, 3))


def write_failure(path):
    with pytest.raises(OutputError) as raised:
        write_bytes_atomic(path, b"new")
    assert raised.value.exit_code == ExitCode.OUTPUT
    return raised.value.message, raised.value.hint


def test_files_are_replaced_whole_with_ordinary_permissions(tmp_path):
    path = tmp_path / "a" / "b" / "file.bin"
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    write_bytes_atomic(path, b"old")
    write_bytes_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert names_in(path.parent) == ["file.bin"]
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)


def test_names_as_long_as_the_file_system_allows(tmp_path):
    path = tmp_path / ("x" * 251 + ".bin")
    write_bytes_atomic(path, b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "make room, or write to another disk"),
        (errno.EACCES, "name a folder you may write to"),
        (
            errno.ENAMETOOLONG,
            "give the photo or video a shorter name: outputs are called like it, and longer",
        ),
        (errno.EIO, "name another place"),
    ],
)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, number, hint):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "replace", fail)
    message, shown_hint = write_failure(path)
    assert (message, shown_hint) == (f"cannot write '{path}': {os.strerror(number)}", hint)
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["file.bin"]


def test_interrupted_writes_leave_nothing(tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes_atomic(tmp_path / "file.bin", b"new")
    assert names_in(tmp_path) == []


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    path = tmp_path / "file" / "x.bin"
    assert write_failure(path)[0] == f"cannot write '{path}': '{path.parent}' is not a folder"
    assert write_failure(tmp_path / "folder")[0].startswith(f"cannot write '{tmp_path / 'folder'}'")
    assert names_in(tmp_path) == ["file", "folder"]
