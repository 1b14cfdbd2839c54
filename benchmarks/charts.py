"""The charts of a run, drawn from its JSON: ``python -m benchmarks.charts`` draws those of ``latest.json`` anew."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measure import HAND_ROLLED, OFFICIAL, OURS, Row
from benchmarks.table import RESULTS, number, rows_from_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

_COLOURS = {OURS: "#1b6ca8", OFFICIAL: "#c8553d", HAND_ROLLED: "#9aa5b1"}
_INK, _QUIET = "#22303c", "#d9dee3"


def draw(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draws every chart that the run has data for, of a quick run the first alone; returns the files."""
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams.update(
        {"font.size": 9, "axes.edgecolor": _QUIET, "axes.spines.top": False, "axes.spines.right": False}
    )
    prefix = "" if found["name"] == "latest" else f"{found['name']}-"
    series = {} if found["name"] == "quick" else found["series"]
    drawn = {
        "throughput": _throughput(rows_from_json(found["rows"])),
        "batching": _batching(series["S6"]) if series.get("S6") else None,
        "endpoints": _endpoints(series["S7"]) if series.get("S7") else None,
        "memory": _memory(series["S8"]) if series.get("S8") else None,
        "stages": _stages(series["stages"]) if series.get("stages") else None,
    }
    written = []
    for name, canvas in drawn.items():
        if canvas is not None:
            written.append(folder / f"{prefix}{name}.png")
            canvas.savefig(written[-1], dpi=130)
    return written


def _canvas(rows: int, columns: int, width: float, height: float) -> tuple[Canvas, Sequence[Axes]]:
    from matplotlib import pyplot

    canvas, axes = pyplot.subplots(rows, columns, figsize=(width, height), squeeze=False, layout="constrained")
    return canvas, list(axes.flat)


def _throughput(rows: Sequence[Row]) -> Canvas | None:
    """Each rate or latency with an official figure: the peers' medians, as multiples of the official client's."""
    shown = [row for row in rows if {OURS, OFFICIAL} <= row.figures.keys() and row.unit in ("images/s", "ms")]
    if not shown:
        return None
    canvas, (axes,) = _canvas(1, 1, 9, 1.2 + 0.55 * len(shown))
    height = 0.8 / len(_COLOURS)
    for place, row in enumerate(shown):
        for i, (peer, colour) in enumerate(_COLOURS.items()):
            if peer not in row.figures:
                continue
            # Where less is better, the bar shows how many times faster.
            factor = row.ratio(OFFICIAL, peer) if row.unit == "ms" else row.ratio(peer, OFFICIAL)
            at = place + i * height
            axes.barh(at, factor, height * 0.9, color=colour, label=peer if place == 0 else None)
            text = f" {number(row.figures[peer].median)} {row.unit}"
            axes.text(factor, at, text, va="center", fontsize=7, color=_INK)
    axes.set_yticks([i + height for i in range(len(shown))], [f"{row.scenario}  {row.what}" for row in shown])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("times as fast as the official client (bar ends are labelled with the median)")
    axes.axvline(1, color=_QUIET, zorder=0)
    axes.margins(x=0.15)
    handles = [*axes.get_legend_handles_labels()[0]]
    axes.legend(handles, list(_COLOURS)[: len(handles)], loc="lower right", frameon=False)
    return canvas


def _batching(courses: Mapping[str, Any]) -> Canvas:
    """What the controller did under each server profile: images a batch, and batches in flight."""
    canvas, axes = _canvas(len(courses), 1, 9, 2.1 * len(courses))
    for name, plot in zip(courses, axes, strict=True):
        samples = courses[name]["samples"]
        at_s = [sample["at_s"] for sample in samples]
        plot.step(at_s, [sample["images"] for sample in samples], color=_COLOURS[OURS], label="images a batch")
        plot.step(
            at_s, [sample["in_flight"] for sample in samples], color=_COLOURS[OFFICIAL], label="batches in flight"
        )
        plot.axvline(courses[name]["warm_s"], color=_QUIET, zorder=0)
        plot.set_yscale("log", base=2)
        plot.yaxis.set_major_formatter("{x:.0f}")
        plot.set_title(name, loc="left", fontsize=9)
        rates = plot.twinx()
        rates.plot(at_s, [sample["images_per_s"] for sample in samples], color=_COLOURS[HAND_ROLLED], linewidth=0.8)
        rates.set_ylabel("images/s", color=_COLOURS[HAND_ROLLED])
        rates.set_ylim(bottom=0)
    axes[0].legend(loc="upper left", frameon=False)
    axes[-1].set_xlabel("seconds; measured from the vertical line on")
    return canvas


def _endpoints(courses: Mapping[str, Any]) -> Canvas:
    """Throughput over time with faults on two of four endpoints."""
    canvas, axes = _canvas(len(courses), 1, 9, 2.4 * len(courses))
    for name, plot in zip(courses, axes, strict=True):
        course = courses[name]
        plot.step(course["at_s"], course["images_per_s"], where="post", color=_COLOURS[OURS])
        plot.axvspan(course["faulty_at_s"], course["returned_at_s"], color=_QUIET, alpha=0.5, zorder=0)
        plot.set_ylim(bottom=0)
        plot.set_title(f"{name}; shaded: one endpoint 20 times slower, one silent", loc="left", fontsize=9)
        plot.set_ylabel("images/s")
    axes[-1].set_xlabel("seconds")
    return canvas


def _memory(runs: Mapping[str, Sequence[float]]) -> Canvas:
    canvas, axes = _canvas(1, len(runs), 9, 2.6)
    for (name, samples), plot in zip(runs.items(), axes, strict=True):
        plot.plot([100 * i / len(samples) for i in range(len(samples))], samples, color=_COLOURS[OURS])
        plot.set_ylim(bottom=0)
        plot.set_title(name, loc="left", fontsize=9)
        plot.set_xlabel("% of the run")
    axes[0].set_ylabel("resident MiB")
    return canvas


def _stages(kinds: Mapping[str, Mapping[str, float]]) -> Canvas:
    """Where the time of one image goes, a bar for each kind of input."""
    canvas, axes = _canvas(1, len(kinds), 3.6 * len(kinds), 3.0)
    for (name, stages), plot in zip(kinds.items(), axes, strict=True):
        labels, values = list(stages), list(stages.values())
        plot.barh(labels, values, color=_COLOURS[OURS])
        for place, value in enumerate(values):
            plot.text(value, place, f" {number(value)}", va="center", fontsize=7, color=_INK)
        plot.invert_yaxis()
        plot.margins(x=0.2)
        plot.set_title(name, loc="left", fontsize=9)
    return canvas


if __name__ == "__main__":
    for path in draw(json.loads((RESULTS / "latest.json").read_text()), RESULTS):
        print(path)
