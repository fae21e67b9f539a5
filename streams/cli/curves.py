"""The curve of savings against false positives as a picture."""

from pathlib import Path
from typing import TYPE_CHECKING

from streams.cli.plots import new_figure, save_figure
from streams.insight.gate import WRONG_SHARE_MAX
from streams.insight.savings import AllSavings, Point, Savings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TYPES_DRAWN_MAX = 6
LABELLED = (0.5, 1, 2, 3, 5, 10, 20, 50)  # times the limit; more would stand on each other


def draw_curve(found: AllSavings, file: Path) -> None:
    """Draw what would have been saved against what would have been wrongly blocked.

    Raises:
        NoPlotsError: matplotlib is not installed.
        InvalidFieldError: the file cannot be written.
    """
    drawn = [found.total] if len(found.by_task_type) == 1 else [found.total, *found.by_task_type]
    drawn = sorted(
        (each for each in drawn if any(point.saved_share for point in each.curve)),
        key=lambda each: -each.failed,
    )[: TYPES_DRAWN_MAX + 1]
    figure = new_figure("--curve", 9, 5.5)
    axes = figure.subplots()
    for number, each in enumerate(drawn):
        _draw(axes, each, f"C{number}")
    axes.axvline(WRONG_SHARE_MAX * 100, color="0.5", linestyle=":", label="5 %: the gate")
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xticks([0, 1, 2, 5, 10, 20, 50, 100], ["0", "1", "2", "5", "10", "20", "50", "100"])
    axes.set_xlim(-0.1, 140)  # with room for the names of the last points
    axes.set_ylim(-2, 102)
    axes.set_xlabel("tasks wrongly blocked, %")
    axes.set_ylabel("tokens of failed runs not spent, %")
    axes.set_title(
        "What a block at so many times the limit would have saved\n"
        f"judged on the part held out (share {found.hold_out.share:g}, seed {found.hold_out.seed})",
        fontsize=11,
    )
    axes.grid(visible=True, alpha=0.3)
    axes.legend(loc="upper left", fontsize=9)
    save_figure("--curve", figure, file)


def _draw(axes: "Axes", each: Savings, colour: str) -> None:
    across = [point.wrong_share * 100 for point in each.curve]
    up = [point.saved_share * 100 for point in each.curve]
    axes.plot(
        across, up, color=colour, marker=".", label=f"{each.task_type}: {each.failed} failed runs"
    )
    labelled: set[tuple[float, float]] = set()
    for point in each.curve:
        if point.saved_share and point.times in LABELLED and _place(point) not in labelled:
            labelled.add(_place(point))
            axes.annotate(
                f"×{point.times:g}",
                (point.wrong_share * 100, point.saved_share * 100),
                xytext=(4, -9),
                textcoords="offset points",
                fontsize=7,
                color=colour,
            )
    if each.chosen is not None:
        axes.plot(
            each.chosen.wrong_share * 100,
            each.chosen.saved_share * 100,
            color=colour,
            marker="o",
            markersize=11,
            fillstyle="none",
            linestyle="none",
            label=f"{each.task_type}: chosen, ×{each.chosen.times:g}",
        )


def _place(point: Point) -> tuple[float, float]:
    return round(point.wrong_share, 2), round(point.saved_share, 2)
