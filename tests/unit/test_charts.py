import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hrnet_cli import charts
from hrnet_cli.charts import Axis, Bars, Chart, Series, bar_chart, histogram, line_chart, suits_log
from hrnet_cli.curves import DPI, draw_charts


def drawing(figure: str) -> ElementTree.Element:
    """Return the drawing of a figure; whatever is not well-formed raises."""
    root = ElementTree.fromstring(figure)
    return next(svg for svg in root.iter("svg") if svg.get("viewBox"))


def points(figure: str) -> list[list[tuple[float, float]]]:
    """Return the corners of each line of a figure, in its own units."""
    return [
        [(float(x), float(y)) for x, y in (pair.split(",") for pair in line.get("points").split())]
        for line in drawing(figure).iter("polyline")
    ]


def marks(figure: str) -> list[str]:
    return [text.text for text in drawing(figure).iter("text") if text.get("class") == "tick"]


def simple(ys, *, y=None, **fields) -> Chart:
    xs = fields.pop("xs", range(len(ys)))
    return Chart("T", [Series("one", list(xs), ys)], Axis("x"), y or Axis("y"), **fields)


def test_line_runs_between_the_ends_of_both_axes():
    (line,) = points(line_chart(simple([0.0, 1.0], y=Axis("y", 0, 1), xs=[0, 10])))
    left = 10 + charts.DIGIT * len("0.0")
    bottom, right = charts.HEIGHT - charts.BOTTOM, charts.WIDTH - charts.RIGHT
    assert np.allclose(line, [(left, bottom), (right, charts.TOP)], atol=0.06)  # 0.1 is written


def test_middle_of_a_log_axis_is_the_middle_decade():
    values = [1e-5, 1e-4, 1e-3]
    (line,) = points(line_chart(simple(values, y=Axis("rate", log=True))))
    heights = [y for _, y in line]
    assert heights[1] == pytest.approx((heights[0] + heights[2]) / 2, abs=0.11)
    assert {"10⁻⁵", "10⁻⁴", "10⁻³"} <= set(marks(line_chart(simple(values, y=Axis("r", log=True)))))


def test_log_axis_of_values_not_above_zero_becomes_an_even_one():
    (line,) = points(line_chart(simple([0.0, 0.5, 1.0], y=Axis("y", log=True))))
    heights = [y for _, y in line]
    assert heights[1] == pytest.approx((heights[0] + heights[2]) / 2, abs=0.11)


def test_points_that_were_not_measured_are_left_out_and_the_line_goes_on():
    (line,) = points(line_chart(simple([0.0, math.nan, 0.5, math.inf, 1.0])))
    assert len(line) == 3


@pytest.mark.parametrize("ys", [[], [math.nan]])
def test_chart_without_a_measurement_says_so(ys):
    assert "Nothing was measured" in line_chart(simple(ys))
    assert "<svg viewBox" not in line_chart(simple(ys))


@pytest.mark.parametrize("value", [0.0, 3.0, -2.0, 1e-7])
def test_single_point_has_a_mark_inside_the_drawing(value):
    figure = drawing(line_chart(simple([value], xs=[1])))
    (mark,) = figure.iter("circle")
    assert 0 <= float(mark.get("cx")) <= charts.WIDTH
    assert charts.TOP <= float(mark.get("cy")) <= charts.HEIGHT - charts.BOTTOM
    assert mark.find("title").text == f"one, 1: {value:.4g}"


def test_every_text_is_escaped():
    evil = '<script>alert("x")</script>&'
    series = [Series(evil, [0, 1], [0, 1])]
    for figure in (
        line_chart(Chart(evil, series, Axis(evil), Axis(evil), evil)),
        bar_chart(evil, [evil], [Bars(evil, [1]), Bars(evil, [2])], axis=Axis(evil), note=evil),
        histogram(evil, [(evil, [0.5])], axis=Axis(evil, 0, 1), counted=evil, note=evil),
    ):
        assert "<script" not in figure
        assert drawing(figure) is not None


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 1.0], ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ([0.0, 1234.0], ["0", "250", "500", "750", "1,000", "1,250"]),
        ([0.0, 1.2], ["0.00", "0.25", "0.50", "0.75", "1.00", "1.25"]),
        ([-1.0, 1.0], ["-1.0", "-0.5", "0.0", "0.5", "1.0"]),
        ([0.00142, 0.00148], ["1.42×10⁻³", "1.44×10⁻³", "1.46×10⁻³", "1.48×10⁻³"]),
        ([0.99e-6, 1.02e-6], ["9.9×10⁻⁷", "1.00×10⁻⁶", "1.01×10⁻⁶", "1.02×10⁻⁶"]),
        ([0.0, 0.0], ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ([0.0, 0.00005], ["0", "10⁻⁵", "2×10⁻⁵", "3×10⁻⁵", "4×10⁻⁵", "5×10⁻⁵"]),
    ],
)
def test_marks_are_round_and_have_equal_decimals(values, expected):
    figure = line_chart(simple(values, xs=[0, 1]))
    assert marks(figure)[: len(expected)] == expected


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [([1], ["1"]), ([1, 2], ["1", "2"]), (range(1, 211), ["50", "100", "150", "200"])],
)
def test_epochs_are_marked_at_whole_numbers(epochs, expected):
    series = [Series("", list(epochs), [1.0] * len(epochs))]
    figure = line_chart(Chart("T", series, Axis("epoch", whole=True), Axis("y", 0, 2)))
    assert marks(figure)[-len(expected) :] == expected


# Wider ranges than any quantity here, and values that differ by rounding only.
@example([276244561111.0, 1.5e-297], True)
@given(
    st.lists(st.floats(-1e12, 1e12, allow_subnormal=False), min_size=1, max_size=8),
    st.booleans(),
)
def test_any_numbers_are_drawn_inside_the_chart(values, log):
    figure = line_chart(simple(values, y=Axis("y", log=log)))
    assert not re.search(r"\b(nan|inf)\b", figure)
    (line,) = points(figure)
    assert all(0 <= x <= charts.WIDTH and 0 <= y <= charts.HEIGHT for x, y in line)


def test_bars_are_as_long_as_their_values_and_say_them():
    figure = drawing(bar_chart("T", ["a", "b"], [Bars("one", [0.25, 0.5])], axis=Axis("y", 0, 1)))
    widths = [float(bar.get("width")) for bar in figure.iter("rect")]
    full = charts.WIDTH - charts.FIGURE_WIDTH - charts.NAME_WIDTH
    assert widths == pytest.approx([full / 4, full / 2], abs=0.06)  # 0.1 is written
    said = [text.text for text in figure.iter("text") if text.get("class") == "figure"]
    assert said == ["0.250", "0.500"]


def test_bar_without_a_value_is_a_dash_and_a_long_name_is_cut():
    name = "left_little_finger_second_joint"
    text = bar_chart("T", [name, "b"], [Bars("one", [None, 1.0])], axis=Axis("y", 0, 1))
    figure = drawing(text)
    assert len(list(figure.iter("rect"))) == 1
    said = [one.text for one in figure.iter("text") if one.get("class") == "figure"]
    assert said == ["—", "1.000"]
    assert f"<title>{name}</title>{name[:17]}…" in text


def test_legend_stands_only_where_there_is_a_choice():
    one = [Bars("gt", [1.0])]
    assert "legend" not in bar_chart("T", ["a"], one, axis=Axis("y"))
    assert "legend" in bar_chart("T", ["a"], [*one, Bars("det", [1.0])], axis=Axis("y"))
    assert "Nothing was measured" in bar_chart("T", ["a"], [Bars("gt", [None])], axis=Axis("y"))


def test_histogram_counts_each_value_once_and_those_beyond_in_the_last_bin():
    figure = histogram(
        "T", [("poses", [0.0, 0.049, 0.5, 1.0, 1.7])], axis=Axis("score", 0, 1), counted="poses"
    )
    (line,) = points(figure)
    floor = charts.HEIGHT - charts.BOTTOM
    heights = [floor - y for _, y in line[1:-1:2]]
    assert len(heights) == charts.BINS
    unit = heights[10]
    assert unit > 0
    expected = [2.0] + [0.0] * 9 + [1.0] + [0.0] * 8 + [2.0]
    assert np.allclose(np.array(heights) / unit, expected, atol=0.01)
    assert "poses (5)" in figure
    assert "number of poses" in figure


def test_histogram_of_shares_makes_groups_of_different_size_compare():
    groups = [("few", [0.1, 0.9]), ("many", [0.1, 0.9] * 50), ("none", [])]
    figure = histogram("T", groups, axis=Axis("OKS", 0, 1))
    few, many = points(figure)
    assert few == many
    assert "none (0)" in figure


@pytest.mark.parametrize(
    ("values", "expected"),
    [([1e-5, 1e-3], True), ([0.5, 1.0], False), ([0.0, 1.0], False), ([], False)],
)
def test_log_axis_suits_values_that_spread_widely(values, expected):
    assert suits_log([*values, math.nan]) is expected


def test_curves_are_a_picture_with_every_chart_in_it():
    chart = simple([0.0, 1.0])
    sizes = {count: draw_charts([chart] * count).shape for count in (0, 1, 2, 3)}
    width, height = round(5.6 * DPI), round(3.4 * DPI)
    assert sizes[0] == sizes[1] == (height, width, 3)
    assert sizes[2] == (height, 2 * width, 3)
    assert sizes[3] == (2 * height, 2 * width, 3)
    picture = draw_charts([chart])
    assert picture.dtype == np.uint8
    # The line is blue: some pixels are much bluer than red, on paper that is white.
    assert (picture[..., 2].astype(int) - picture[..., 0] > 100).sum() > 200
    assert (picture == 255).all(axis=-1).mean() > 0.5
