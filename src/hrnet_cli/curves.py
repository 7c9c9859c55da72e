"""Charts as one picture, for places that show no web page."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hrnet_cli.charts import MOST_MARKS, Chart
from hrnet_cli.palettes import BLUE, GREEN, INK, ORANGE, PURPLE, SKY_BLUE, VERMILLION

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SERIES_COLORS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY_BLUE, INK)
DPI = 110
CHART_INCHES = (5.6, 3.4)


def draw_charts(charts: Sequence[Chart]) -> npt.NDArray[np.uint8]:
    """Return charts of lines two side by side, uint8 RGB (H, W, 3) on white."""
    # matplotlib takes half a second to load; without pyplot it keeps no state and opens no window.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(2, max(len(charts), 1))
    lines = max(1, math.ceil(len(charts) / columns))
    width, height = CHART_INCHES
    figure = Figure(figsize=(width * columns, height * lines), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for position, chart in enumerate(charts):
        _plot(figure.add_subplot(lines, columns, position + 1), chart)
    if not charts:
        figure.text(0.5, 0.5, "nothing was measured", ha="center")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba(), np.uint8)[..., :3].copy()


def _plot(axes: "Axes", chart: Chart) -> None:
    from matplotlib.ticker import MaxNLocator

    for number, one in enumerate(chart.series):
        red, green, blue = SERIES_COLORS[number % len(SERIES_COLORS)]
        axes.plot(
            one.xs,
            one.ys,
            color=(red / 255, green / 255, blue / 255),
            linestyle=("-", "--", ":", "-.")[number % 4],
            marker="o" if len(one.xs) <= MOST_MARKS else "",
            markersize=3,
            label=one.name,
        )
    if chart.y.log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(chart.y.low, chart.y.high)
    if chart.x.whole:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.set_title(chart.title, loc="left", fontsize=10, fontweight="bold")
    axes.set_xlabel(chart.x.label, fontsize=9)
    axes.set_ylabel(chart.y.label, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if any(one.name for one in chart.series):
        axes.legend(fontsize=8, frameon=False)
