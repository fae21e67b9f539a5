"""Distributions as pictures: matplotlib without a screen, loaded where something is drawn."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from schemas.errors import InvalidFieldError, StoplossError
from schemas.fields import Metric
from schemas.quantiles import count, cumulative, histogram_of, merged
from schemas.sketches import Histogram
from streams.insight.baselines import UNITS
from streams.insight.runaways import RUNAWAY_RATIO, USUAL_SHARE, RunawayAnswer
from streams.replay.history import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")
INSTALL = "pip install 'stoploss[analysis]'"
LINES_MAX = 9  # more colours cannot be told apart
PANEL_INCHES = (6.2, 4.4)
DOTS_PER_INCH = 120
AXES = {
    Metric.TOKENS: ("metered tokens", 1.0),
    Metric.LATENCY_MS: ("seconds", 1_000.0),
    Metric.COST_USD: ("dollars", 1.0),
}


class NoPlotsError(StoplossError):
    """What draws is not installed."""


def checked_plot_file(field: str, file: Path) -> Path:
    """Return a file that a picture can be written to.

    Raises:
        InvalidFieldError: `field` names a kind that is not drawn, or a folder that is not there.
    """
    if file.suffix not in SUFFIXES:
        raise InvalidFieldError(field, str(file), f"a name that ends in {' or '.join(SUFFIXES)}")
    if not file.parent.is_dir():
        raise InvalidFieldError(field, str(file), "a file in a folder that is there")
    return file


def draw_baselines(history: History, runaways: RunawayAnswer, file: Path) -> None:
    """Draw how runs of each phase, and tasks of each type, are distributed.

    Raises:
        NoPlotsError: matplotlib is not installed.
        InvalidFieldError: the file cannot be written.
    """
    by_metric = {metric: phases for metric in Metric if (phases := _by_phase(history, metric))}
    columns = 2 if by_metric else 1
    rows = (len(by_metric) + 2) // 2
    width, height = PANEL_INCHES
    figure = new_figure("--plot", width * columns, height * rows)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    _draw_tasks(panels[0], history, runaways)
    for panel, (metric, phases) in zip(panels[1:], by_metric.items(), strict=False):
        _draw(panel, phases, metric, f"runs of each phase: {AXES[metric][0]}")
    for panel in panels[1 + len(by_metric) :]:
        panel.set_visible(False)
    save_figure("--plot", figure, file)


def check_can_draw(field: str) -> None:
    """Refuse to begin what takes long where its picture, for which `field` asks, cannot be drawn.

    Raises:
        NoPlotsError: matplotlib is not installed.
    """
    new_figure(field, *PANEL_INCHES)


def new_figure(field: str, width_inches: float, height_inches: float) -> "Figure":
    """Return an empty picture, for which `field` of the command line asks.

    Raises:
        NoPlotsError: matplotlib is not installed.
    """
    try:
        # Importing it takes half a second, which every other command would pay for.
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        raise NoPlotsError(f"{field} needs matplotlib: {INSTALL}") from None
    return Figure(figsize=(width_inches, height_inches), layout="constrained")


def save_figure(field: str, figure: "Figure", file: Path) -> None:
    """Write a picture.

    Raises:
        InvalidFieldError: the file, which `field` names, cannot be written.
    """
    try:
        figure.savefig(file, dpi=DOTS_PER_INCH)
    except OSError as error:
        problem = error.strerror or str(error)
        raise InvalidFieldError(
            field, str(file), f"a file that you can write ({problem})"
        ) from None


def _by_phase(history: History, metric: Metric) -> dict[str, Histogram]:
    found: dict[str, Histogram] = {}
    for one in history.baselines:
        measured = one.metrics.get(metric)
        if measured is not None:
            found[one.phase] = merged(found.get(one.phase, Histogram()), measured.sketch)
    return found


def _draw_tasks(panel: "Axes", history: History, runaways: RunawayAnswer) -> None:
    unit = UNITS[Metric.TOKENS]
    kinds = {
        kind.task_type or "–": histogram_of(
            task.used[Metric.TOKENS] / unit
            for task in history.tasks
            if task.task_type == kind.task_type
            and task.parent_id is None
            and Metric.TOKENS in task.used
        )
        for kind in runaways.kinds
    }
    title = f"tasks by type: metered tokens (○ {RUNAWAY_RATIO:g} × p75: beyond, they ran away)"
    shown = {name: each for name, each in kinds.items() if count(each)}
    # Types that lie far apart leave no room at the lower right.
    _draw(panel, shown, Metric.TOKENS, title, legend="upper left")
    for number, kind in enumerate(each for each in runaways.kinds if each.known):
        if kind.p75 and kind.is_judged and number < LINES_MAX:
            panel.plot(
                RUNAWAY_RATIO * kind.p75,
                (1 - kind.share) * 100,
                color=f"C{number}",
                marker="o",
                markersize=9,
                fillstyle="none",
            )


def _draw(
    panel: "Axes",
    lines: dict[str, Histogram],
    metric: Metric,
    title: str,
    *,
    legend: Literal["lower right", "upper left"] = "lower right",
) -> None:
    unit_text, per_unit = AXES[metric]
    for number, (name, histogram) in enumerate(list(lines.items())[:LINES_MAX]):
        points = [(value / per_unit, share * 100) for value, share in cumulative(histogram)]
        # What was zero has no place on a logarithmic axis: the line begins above the bottom.
        shown = [point for point in points if point[0] > 0]
        across, up = [point[0] for point in shown], [point[1] for point in shown]
        label = f"{name} ({count(histogram):,})"
        panel.step(across, up, where="post", color=f"C{number}", label=label)
    panel.axhline(USUAL_SHARE * 100, color="0.6", linestyle=":", linewidth=1)
    panel.annotate(
        "p75",
        (0.96, USUAL_SHARE * 100 + 1),
        xycoords=("axes fraction", "data"),
        color="0.4",
        fontsize=8,
    )
    panel.set_xscale("log")
    panel.set_ylim(0, 101)
    panel.set_xlabel(f"{unit_text} (logarithmic)")
    panel.set_ylabel("share that took at most so much, %")
    panel.set_title(title, fontsize=10)
    panel.grid(visible=True, alpha=0.3)
    if lines:
        panel.legend(loc=legend, fontsize=8)
