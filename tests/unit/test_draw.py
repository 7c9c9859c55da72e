import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from hrnet_cli.config import BACKGROUNDS, PARTS
from hrnet_cli.draw import DrawStyle, draw_poses, load_connections
from hrnet_cli.errors import ConfigError, ExitCode
from hrnet_cli.palettes import CENTRE, INK, LEFT, PALETTES, RIGHT, SEVERAL, WHITE
from hrnet_cli.schema import SCHEMAS, KeypointSchema, load_schema
from hrnet_cli.structures import Boxes, PersonHeatmaps, Poses

LINE = KeypointSchema("line", ("a", "b"), skeleton=(("a", "b"),))
BODY = KeypointSchema(
    "body",
    ("left_hip", "left_knee", "right_hip", "right_knee"),
    skeleton=(("left_hip", "left_knee"), ("right_hip", "right_knee"), ("left_hip", "right_hip")),
    flip_pairs=(("left_hip", "right_hip"), ("left_knee", "right_knee")),
)


def poses_of(schema, *people, scores=0.9, extent=None):
    """People with keypoints at the given places; boxes around them, or of a given size."""
    keypoints_NK2 = np.array(people, np.float32).reshape(len(people), len(schema), 2)
    near_N2 = np.nan_to_num(keypoints_NK2).min(axis=1)
    far_N2 = np.nan_to_num(keypoints_NK2).max(axis=1) if extent is None else near_N2 + extent
    count = len(people)
    return Poses(
        keypoints_NK2,
        np.broadcast_to(np.asarray(scores, np.float32), (count, len(schema))),
        np.full(count, 0.75),
        Boxes(np.concatenate([near_N2, far_N2], axis=1), np.full(count, 0.9)),
        schema,
    )


def grey(width=200, height=200):
    return np.full((height, width, 3), 128, np.uint8)


def noise(width=200, height=200):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def standing(size=100.0, at=(60.0, 40.0)):
    """Four keypoints of a body, its left on the right of the picture."""
    places = np.array([[0.7, 0.0], [0.7, 1.0], [0.1, 0.0], [0.1, 1.0]]) * size + at
    return poses_of(BODY, places, extent=size)


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_the_argument_stays_as_it_is(background):
    image = noise()
    before = image.copy()
    drawn = draw_poses(
        image,
        with_heatmaps(standing()),
        parts=PARTS,
        style=DrawStyle(background=background),
    )
    np.testing.assert_array_equal(image, before)
    assert not np.shares_memory(drawn, image)


@pytest.mark.parametrize("parts", [PARTS, ("keypoints", "skeleton"), ()])
def test_nobody_gives_an_equal_picture(parts):
    image = noise()
    drawn = draw_poses(image, Poses.empty(load_schema("coco17")), parts=parts)
    np.testing.assert_array_equal(drawn, image)
    assert not np.shares_memory(drawn, image)


def test_nobody_on_other_backgrounds():
    nobody = Poses.empty(BODY)
    black = draw_poses(noise(), nobody, style=DrawStyle(background="black"))
    clear = draw_poses(noise(), nobody, style=DrawStyle(background="transparent"))
    assert black.shape == (200, 200, 3)
    assert clear.shape == (200, 200, 4)
    assert not black.any()
    assert not clear.any()


@pytest.mark.parametrize("size", [60.0, 100.0, 160.0, 900.0])  # fourfold, twofold and plain
def test_limbs_have_the_colours_of_the_sides(size):
    drawn = draw_poses(grey(1000, 1000), standing(size), parts=("skeleton",))
    left, right, middle = ([0.7, 0.5], [0.1, 0.5], [0.4, 0.0])
    for place, color in ((left, LEFT), (right, RIGHT), (middle, CENTRE)):
        x, y = np.round(np.array(place) * size + (60, 40)).astype(int)
        # A line of 1.6 pixels that lies between two pixels covers 0.8 of each.
        tolerance = 40 if size == 60 else 1
        assert np.abs(drawn[y, x].astype(int) - color).max() <= tolerance, (place, drawn[y, x])


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("palette", PALETTES)
def test_every_palette_draws_every_schema(schema, palette):
    schema = load_schema(schema)
    places = np.random.default_rng(0).uniform(20, 180, (2, len(schema), 2))
    style = DrawStyle(palette=palette)
    drawn = draw_poses(grey(), poses_of(schema, *places, extent=160), parts=PARTS[:4], style=style)
    assert (drawn != 128).any()


def test_hands_are_coloured_by_finger():
    hand = load_schema("hand21")
    fan = [[100.0, 180.0]] + [
        [100 + (finger - 2) * (step + 1) * 9, 150 - step * 35]
        for finger in range(5)
        for step in range(4)
    ]
    drawn = draw_poses(grey(), poses_of(hand, fan), parts=("keypoints",))
    colors = [tuple(drawn[round(y), round(x)].tolist()) for x, y in fan]
    assert colors[0] == WHITE
    fingers = [set(colors[1 + 4 * finger : 5 + 4 * finger]) for finger in range(5)]
    assert fingers == [{color} for color in SEVERAL[:5]]
    limbs = draw_poses(grey(), poses_of(hand, fan), parts=("skeleton",))
    for finger in range(5):  # the limb at the wrist belongs to the finger
        x, y = (np.array(fan[0]) * 0.4 + np.array(fan[1 + 4 * finger]) * 0.6).round().astype(int)
        assert np.abs(limbs[y, x].astype(int) - SEVERAL[finger]).max() <= 40, finger  # a thin line


def test_connected_keypoints_without_a_fork_are_one_chain():
    chain = KeypointSchema("s", ("a", "b", "c", "d"), skeleton=(("a", "b"), ("b", "c")))
    places = [[20, 20], [80, 20], [140, 20], [80, 100]]
    drawn = draw_poses(grey(), poses_of(chain, places), parts=("keypoints",))
    colors = [tuple(drawn[y, x].tolist()) for x, y in places]
    assert colors == [SEVERAL[0], SEVERAL[0], SEVERAL[0], SEVERAL[1]]


def test_people_have_the_colour_of_their_track():
    two = poses_of(LINE, [[20, 20], [80, 20]], [[20, 80], [80, 80]], extent=200)
    style = DrawStyle(palette="people")
    first, second = (draw_poses(grey(), two, style=style)[y, 50].tolist() for y in (20, 80))
    assert (tuple(first), tuple(second)) == SEVERAL[:2]
    tracked = replace(two, track_ids_N=np.array([5, 12]))
    first, second = (draw_poses(grey(), tracked, style=style)[y, 50].tolist() for y in (20, 80))
    assert (tuple(first), tuple(second)) == (SEVERAL[5], SEVERAL[5])  # seven colours, then again


def seen_by(kind, color):
    """The CIELAB colour that a colour-blind person sees (Machado et al. 2009, severity 1)."""
    matrix = {
        "normal": np.eye(3),
        "protan": [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
        "deutan": [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
        "tritan": [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ],
    }[kind]
    srgb = np.array(color) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(matrix) @ linear, 0, 1)
    srgb = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    return cv2.cvtColor(srgb.astype(np.float32).reshape(1, 1, 3), cv2.COLOR_RGB2LAB).ravel()


@pytest.mark.parametrize("kind", ["normal", "protan", "deutan", "tritan"])
def test_the_sides_are_told_apart_with_every_colour_vision(kind):
    left, right, centre = (seen_by(kind, color) for color in (LEFT, RIGHT, CENTRE))
    # A difference of 2.3 is just noticeable; 40 is as far as green is from yellow-green.
    for a, b in ((left, right), (left, centre), (right, centre)):
        assert np.linalg.norm(a - b) > 40


@pytest.mark.parametrize("extent", [60, 300, 1000, 4000])
def test_widths_and_points_follow_the_size_of_the_person(extent):
    style = DrawStyle(background="transparent")
    poses = poses_of(LINE, [[300.4, 150], [300.4, 750]], extent=extent)
    picture = grey(600, 4000)
    limb = draw_poses(picture, poses, parts=("skeleton",), style=style)[450, :, 3].sum() / 255
    point = draw_poses(picture, poses, parts=("keypoints",), style=style)[:450, :, 3].sum() / 255
    width = max(1.6, 0.015 * extent)
    radius = max(1.9, 0.016 * extent)
    border = max(0.7, 0.22 * width)
    # What OpenCV draws varies by a quarter pixel with the direction.
    assert abs(limb - (width + 2 * border)) <= 0.4
    assert abs(np.sqrt(point / np.pi) - (radius + border)) <= 0.4


@pytest.mark.parametrize("width", [1.0, 2.5, 5.0, 12.0])
def test_sizes_can_be_given_in_pixels(width):
    style = DrawStyle(background="transparent", line_width=width, point_size=3 * width)
    vertical = poses_of(LINE, [[100.3, 50], [100.3, 150]], extent=60)
    limb = draw_poses(grey(), vertical, parts=("skeleton",), style=style)
    # The coverage of one row adds up to the width with the border on both sides. What OpenCV draws
    # varies by a quarter pixel with the direction.
    expected = width + 2 * max(0.7, 0.22 * width)
    assert abs(limb[100, :, 3].sum() / 255 - expected) <= 0.4
    points = draw_poses(grey(), vertical, parts=("keypoints",), style=style)
    radius = 3 * width + max(0.7, 0.22 * width)
    # Measured as an area, since the row through the middle of a small disc says little.
    area = points[:100, :, 3].sum() / 255
    assert abs(np.sqrt(area / np.pi) - radius) <= 0.4


@pytest.mark.parametrize("size", [1.0, 2.2, 8.0])  # radii: drawn fourfold, twofold, plainly
@pytest.mark.parametrize("place", [(50.0, 60.0), (50.25, 60.75), (50.5, 60.5)])
def test_points_lie_where_they_are_to_a_fraction_of_a_pixel(size, place):
    one = KeypointSchema("one", ("a",))
    style = DrawStyle(background="transparent", point_size=size * 2, line_width=size)
    alpha = draw_poses(grey(), poses_of(one, [place]), style=style)[..., 3].astype(float)
    rows, columns = np.indices(alpha.shape)
    center = [(alpha * axis).sum() / alpha.sum() for axis in (columns, rows)]
    # OpenCV takes 1/16 pixel, and its edges are not quite even. Half a pixel would be a mistake.
    np.testing.assert_allclose(center, place, atol=0.15)


def test_pixels_that_are_not_drawn_on_stay_as_they_are():
    image = noise()
    drawn = draw_poses(image, poses_of(LINE, [[30, 30], [170, 170]], extent=60))
    rows, columns = np.indices(image.shape[:2])
    away = np.abs(rows - columns) > 12
    np.testing.assert_array_equal(drawn[away], image[away])
    assert (drawn[100, 100] != image[100, 100]).any()


def test_a_transparent_background_has_full_colour_below_soft_edges():
    style = DrawStyle(background="transparent", line_width=2.0)
    drawn = draw_poses(noise(), standing(), parts=("skeleton",), style=style)
    assert drawn.shape == (200, 200, 4)
    assert drawn[5, 5].tolist() == [0, 0, 0, 0]
    assert drawn[90, 130].tolist() == [*LEFT, 255]
    soft = (drawn[..., 3] > 40) & (drawn[..., 3] < 255)
    assert soft.any()
    # The border is what fades out; mixed with black it would be darker than its ink.
    assert (np.abs(drawn[soft][:, :3].max(axis=1).astype(int) - INK[0]) <= 4).mean() > 0.5
    assert drawn[soft][:, :3].max(axis=1).min() >= INK[0] - 4


def test_a_black_background_shows_the_poses_alone():
    style = DrawStyle(background="black")
    drawn = draw_poses(noise(), standing(), style=style)
    assert not drawn[:20].any()
    assert drawn[90, 130].tolist() == list(LEFT)


def test_pictures_of_any_layout_in_memory_are_drawn_on():
    picture = noise()
    for background in ("photo", "black"):
        style = DrawStyle(background=background)
        expected = draw_poses(picture, standing(), style=style)
        turned = np.asfortranarray(picture)
        assert (draw_poses(turned, standing(), style=style) == expected).all()
    plain = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), picture.shape)
    assert (draw_poses(plain, standing(), style=style) == expected).all()


def share_along(drawn, color, rows, column):
    near = np.abs(drawn[rows, column].astype(int) - color).max(axis=1) < 40
    return near.mean()


def test_unsure_limbs_are_dashed_and_hidden_ones_are_not_drawn():
    style = DrawStyle(background="black", keypoint_threshold=0.3, sure_threshold=0.5)
    vertical = [[100, 20], [100, 180]]
    shares = {}
    for score in (0.29, 0.3, 0.49, 0.5, np.nan):
        poses = poses_of(LINE, vertical, scores=[[0.9, score]], extent=160)
        drawn = draw_poses(grey(), poses, parts=("skeleton",), style=style)
        shares[score] = share_along(drawn, SEVERAL[0], slice(20, 180), 100)
    assert shares[0.29] == shares[np.nan] == 0
    assert shares[0.5] == 1
    assert 0.4 < shares[0.3] < 0.85
    assert shares[0.3] == shares[0.49]


def test_unsure_keypoints_are_hollow_and_hidden_ones_are_not_drawn():
    style = DrawStyle(background="black", point_size=8, keypoint_threshold=0.3, sure_threshold=0.5)
    scores = [[0.29, 0.3, 0.5, np.nan]]
    places = [[30, 30], [80, 30], [130, 30], [180, 30]]
    poses = poses_of(BODY, places, scores=scores)
    drawn = draw_poses(grey(), poses, parts=("keypoints",), style=style)
    assert not drawn[15:45, 15:45].any()
    assert not drawn[15:45, 165:195].any()
    assert drawn[30, 80].tolist() == list(INK)
    assert drawn[30, 86].tolist() == list(LEFT)
    assert drawn[30, 130].tolist() == list(RIGHT)


@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize(
    "place", [(np.nan, 50), (np.inf, -np.inf), (1e9, -1e9), (3e38, 50), (-500, 100), (5000, 5000)]
)
def test_keypoints_far_out_or_nowhere_do_no_harm(background, place):
    poses = poses_of(LINE, [[100, 100], place], extent=60)
    drawn = draw_poses(grey(), poses, parts=PARTS[:4], style=DrawStyle(background=background))
    assert drawn[100, 100, :3].tolist() == list(SEVERAL[0])


def test_limbs_point_at_keypoints_outside_the_picture():
    poses = poses_of(LINE, [[100, 100], [900, 500]], extent=100)
    drawn = draw_poses(grey(), poses, parts=("skeleton",), style=DrawStyle(line_width=6))
    for x, y in ((140, 120), (180, 140), (199, 150)):
        assert drawn[y, x].tolist() == list(SEVERAL[0])


@pytest.mark.parametrize(
    "box", [[np.nan] * 4, [-np.inf, 0, np.inf, 9], [1e9, 1e9, 2e9, 2e9], [90, 90, 10, 10]]
)
def test_boxes_that_make_no_sense_do_no_harm(box):
    poses = standing()
    poses = replace(poses, boxes=Boxes(np.array([box], np.float32), np.ones(1)))
    assert draw_poses(grey(), poses, parts=PARTS[:4]).shape == (200, 200, 3)


@pytest.mark.parametrize("size_wh", [(1, 1), (3000, 2), (2, 3000)])
def test_extreme_pictures(size_wh):
    drawn = draw_poses(grey(*size_wh), standing(), parts=PARTS[:4])
    assert drawn.shape == (size_wh[1], size_wh[0], 3)


def test_small_people_are_drawn_over_large_ones():
    large = [[100, 20], [100, 180]]
    small = [[80, 100], [120, 100]]
    poses = poses_of(LINE, small, large)
    style = DrawStyle(palette="people", line_width=6)
    assert draw_poses(grey(), poses, style=style)[100, 100].tolist() == list(SEVERAL[0])


def test_own_connections_replace_those_of_the_schema():
    diagonal = (("left_hip", "right_knee"),)
    drawn = draw_poses(grey(), standing(), parts=("skeleton",), connections=diagonal)
    assert drawn[90, 100].tolist() != [128] * 3
    assert drawn[90, 130].tolist() == [128] * 3


def test_boxes_are_frames():
    drawn = draw_poses(grey(), standing(), parts=("boxes",))
    box = standing().boxes.xyxy_N4[0].astype(int)
    assert drawn[box[1], box[0] + 50].tolist() == list(SEVERAL[0])
    assert drawn[box[3], box[0] + 50].tolist() == list(SEVERAL[0])
    assert drawn[box[1] + 50, box[0] + 50].tolist() == [128] * 3


def labels(poses, size=1000, parts=("scores",)):
    drawn = draw_poses(grey(size, size), poses, parts=parts, style=DrawStyle(background="black"))
    count, _, stats, _ = cv2.connectedComponentsWithStats(drawn.any(axis=2).astype(np.uint8))
    return count - 1, stats[1:]


def test_large_people_have_scores_at_every_keypoint_and_small_ones_one():
    count, stats = labels(standing(600.0))
    assert count == 5
    # Filled rectangles: each stands alone, none is cut off.
    assert (stats[:, cv2.CC_STAT_AREA] == stats[:, 2] * stats[:, 3]).all()
    assert (stats[:, cv2.CC_STAT_HEIGHT] >= 12).all()
    count, stats = labels(standing(80.0))
    assert count == 1
    assert stats[0, cv2.CC_STAT_HEIGHT] >= 12


def test_names_stand_beside_the_keypoints_of_large_people_alone_or_with_scores():
    count, stats = labels(standing(600.0), parts=("names",))
    assert count == 4  # and none over the box
    # Of other names, other labels.
    short = replace(standing(600.0), schema=KeypointSchema("short", ("a", "b", "c", "d")))
    _, stats_of_short = labels(short, parts=("names",))
    widths, short_widths = (found[:, cv2.CC_STAT_WIDTH] for found in (stats, stats_of_short))
    assert widths.min() > 2 * short_widths.max()
    count, stats = labels(standing(600.0), parts=("names", "scores"))
    assert count == 5
    assert stats[:, cv2.CC_STAT_WIDTH].max() > widths.max()
    assert labels(standing(80.0), parts=("names",))[0] == 0


def test_names_in_other_letters_are_drawn():
    foreign = KeypointSchema("foreign", ("鼻", "Füße", "a", "b"))
    poses = poses_of(foreign, [[200, 200], [200, 400], [200, 600], [200, 800]], extent=800)
    assert labels(poses, parts=("names",))[0] == 4


def test_labels_do_not_hide_each_other():
    one_place = [[500.0, 500.0]] * 4
    elsewhere = Boxes(np.array([[50, 50, 450, 450]], np.float32), np.ones(1))
    count, stats = labels(replace(poses_of(BODY, one_place), boxes=elsewhere))
    # The person's label and the four places around the one point.
    assert count == 5
    assert (stats[:, cv2.CC_STAT_AREA] == stats[:, 2] * stats[:, 3]).all()
    crowd = poses_of(BODY, one_place, one_place, extent=30)
    assert labels(crowd)[0] == 2


def with_heatmaps(poses, step=4.0, corner=(20.0, 40.0)):
    """Heatmaps of 40x30 cells whose one peak lies at cell (10, 8)."""
    rows, columns = np.indices((30, 40))
    peak_HW = np.exp(-((rows - 8) ** 2 + (columns - 10) ** 2) / 8)
    maps_NKHW = np.zeros((len(poses), len(poses.schema), 30, 40), np.float32)
    maps_NKHW[:, 0] = peak_HW
    matrix = np.array([[step, 0, corner[0]], [0, step, corner[1]]])
    matrices = np.broadcast_to(matrix, (len(poses), 2, 3))
    return replace(poses, heatmaps=PersonHeatmaps(maps_NKHW, matrices))


def test_heatmaps_glow_where_they_are_high():
    poses = with_heatmaps(standing())
    style = DrawStyle(background="black")
    drawn = draw_poses(grey(), poses, parts=("heatmap",), style=style).astype(int)
    glow = drawn.sum(axis=2)
    ys, xs = np.nonzero(glow == glow.max())
    # Cell (10, 8) lies at (20 + 4 * 10, 40 + 4 * 8).
    assert abs(xs.mean() - 60) <= 1
    assert abs(ys.mean() - 72) <= 1
    assert glow[150, 150] == 0
    photo = draw_poses(grey(), poses, parts=("heatmap",))
    assert photo[150, 150].tolist() == [128] * 3
    clear = draw_poses(grey(), poses, parts=("heatmap",), style=DrawStyle(background="transparent"))
    assert clear[72, 60, 3] == round(0.8 * 255)
    assert clear[150, 150, 3] == 0


def failure(function, *arguments, **options):
    with pytest.raises(ConfigError) as raised:
        function(*arguments, **options)
    assert raised.value.exit_code == ExitCode.CONFIG
    return raised.value.message, raised.value.hint


def test_heatmaps_that_were_not_kept():
    message, hint = failure(draw_poses, grey(), standing(), parts=("heatmap",))
    assert message == "cannot draw 'heatmap': these poses come without their heatmaps"
    assert hint == "build the estimator with keep_heatmaps=True"


def test_unknown_connections_and_parts():
    message, hint = failure(draw_poses, grey(), standing(), connections=(("left_hip", "left_nee"),))
    assert message == (
        "connections of schema 'body' names keypoint 'left_nee', which is not among its keypoints"
    )
    assert hint == "did you mean 'left_knee'?"
    message, _ = failure(draw_poses, grey(), standing(), parts=("bones",))
    assert message == (
        "cannot draw 'bones', expected some of keypoints, skeleton, boxes, scores, names, ids,"
        " heatmap"
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"palette": "x"}, "palette is 'x', expected one of sides, people, limbs"),
        ({"background": "x"}, "background is 'x', expected one of photo, black, transparent"),
        ({"point_size": 0}, "point_size is 0 pixels, expected more than 0 and at most 10,000"),
        (
            {"line_width": -1.5},
            "line_width is -1.5 pixels, expected more than 0 and at most 10,000",
        ),
        (
            {"line_width": float("nan")},
            "line_width is nan pixels, expected more than 0 and at most 10,000",
        ),
        (
            {"line_width": float("inf")},
            "line_width is inf pixels, expected more than 0 and at most 10,000",
        ),
    ],
)
def test_styles_that_make_no_sense(fields, message):
    assert failure(DrawStyle, **fields)[0] == message


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("limbs.toml", 'skeleton = [["left_hip", "left_knee"], [2, 3]]'),
        ("limbs.json", '[["left_hip", "left_knee"], [2, "right_knee"]]'),
        ("limbs.JSON", '{"skeleton": [[0, 1], [2, 3]]}'),
    ],
)
def test_connections_from_files(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    assert load_connections(path, BODY) == (("left_hip", "left_knee"), ("right_hip", "right_knee"))


@pytest.mark.parametrize(
    ("name", "content", "message", "hint"),
    [
        (
            "a.toml",
            "x = 1",
            "hold no list of pairs",
            'expected skeleton = [["nose", "left_eye"], ...]',
        ),
        ("a.json", "3", "hold no list of pairs", 'expected skeleton = [["nose", "left_eye"], ...]'),
        (
            "a.json",
            "[[0, 4]]",
            "hold [0, 4], expected a pair of keypoint names or of numbers from 0 to 3",
            "",
        ),
        (
            "a.json",
            "[[0, true]]",
            "hold [0, True], expected a pair of keypoint names or of numbers from 0 to 3",
            "",
        ),
        (
            "a.json",
            "[[0, 1, 2]]",
            "hold [0, 1, 2], expected a pair of keypoint names or of numbers from 0 to 3",
            "",
        ),
        (
            "a.json",
            "[0]",
            "hold 0, expected a pair of keypoint names or of numbers from 0 to 3",
            "",
        ),
        (
            "a.json",
            '[["left_hip", "x"]]',
            "of schema 'body' names keypoint 'x', which is not among its keypoints",
            "keypoints: left_hip, left_knee, right_hip, right_knee",
        ),
        (
            "a.json",
            "[[1, 1]]",
            "of schema 'body' pairs 'left_knee' with itself",
            "a pair needs two different keypoints",
        ),
    ],
)
def test_connections_that_make_no_sense(tmp_path, name, content, message, hint):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    assert failure(load_connections, path, BODY) == (f"connections '{path}' {message}", hint)


@pytest.mark.parametrize(("name", "kind"), [("a.toml", "TOML"), ("a.json", "JSON")])
def test_connections_that_cannot_be_read(tmp_path, name, kind):
    path = tmp_path / name
    assert failure(load_connections, path, BODY)[0] == (
        f"connections '{path}' cannot be read: No such file or directory"
    )
    for content in ("{[", ("a = " if kind == "TOML" else "") + "[" * 100_000):
        path.write_text(content, encoding="utf-8")
        assert failure(load_connections, path, BODY)[0].startswith(
            f"connections '{path}' are not readable as {kind}: "
        )


def test_connections_of_a_schema_file_are_its_limbs(tmp_path):
    path = tmp_path / "limbs.json"
    path.write_text(json.dumps([list(pair) for pair in BODY.skeleton]), encoding="utf-8")
    assert load_connections(path, BODY) == BODY.skeleton


def tracked(*ids):
    poses = standing()
    return replace(poses, track_ids_N=np.array(ids[: len(poses)], np.int64))


@pytest.mark.parametrize("parts", [("ids",), ("boxes",), ("scores",)])
def test_people_of_a_video_bear_their_ids(parts):
    without = draw_poses(grey(), standing(), parts=parts)
    first = draw_poses(grey(), tracked(1), parts=parts)
    other = draw_poses(grey(), tracked(7), parts=parts)
    assert not np.array_equal(first, without)
    assert not np.array_equal(first, other)


def test_ids_are_drawn_where_they_are_asked_for_and_known():
    assert np.array_equal(draw_poses(grey(), standing(), parts=("ids",)), grey())
    parts = ("keypoints", "skeleton")
    palette = DrawStyle()
    plain = draw_poses(grey(), standing(), parts=parts, style=palette)
    assert np.array_equal(draw_poses(grey(), tracked(0), parts=parts, style=palette), plain)
