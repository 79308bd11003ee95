"""Pictures of what benches told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

OURS, OTHERS = "#1f6feb", "#9aa4b2"
_OUR_WAYS = ("modlake", "columns", "moderate_images", "as landed")


PANELS = {
    "per_second": "{unit} a second",
    "images_per_second": "images a second",
    "peak_mb": "peak memory of the process, MB",
    "task_starts": "starts of a task's process",
    "worker_seconds": "seconds of workers' processes",
    "mb": "size of the files, MB",
    "one image, ms": "time to find one image, ms",
}
"""What is drawn of a bench's ways, as far as they tell it."""


def plot(told: dict[str, Any], path: Path) -> Path:
    """Draw a bench's ways side by side, or its curves."""
    ways = told["ways"]
    if "step" in ways[0]:
        return _curves(told, path)
    fields = [field for field in PANELS if field in ways[0]]
    count = len(fields)
    figure, panels = plt.subplots(1, count, figsize=(1 + 5 * count, 0.5 * len(ways) + 1.6), squeeze=False)
    for axes, field in zip(panels[0], fields, strict=True):
        _bars(axes, ways, field, PANELS[field].format(unit=told.get("unit", "images")))
        if axes is not panels[0][0]:
            axes.set_yticklabels([])
    figure.suptitle(told["title"])
    return _save(figure, path)


def _bars(axis: Axes, ways: list[dict[str, Any]], field: str, label: str) -> None:
    names = [way["way"] for way in ways]
    values = [way[field] for way in ways]
    colours = [OURS if name.startswith(_OUR_WAYS) else OTHERS for name in names]
    bars = axis.barh(names, values, color=colours)
    axis.bar_label(
        bars,
        [f"{value:,.0f}" if value >= 100 else f"{value:,.3g}" for value in values],
        padding=3,
        fontsize=8,
    )
    axis.invert_yaxis()
    axis.set_xlabel(label)
    axis.margins(x=0.18)
    axis.spines[["top", "right"]].set_visible(False)


def _curves(told: dict[str, Any], path: Path) -> Path:
    figure, (time, memory) = plt.subplots(1, 2, figsize=(11, 4))
    for step in dict.fromkeys(way["step"] for way in told["ways"]):
        ways = [way for way in told["ways"] if way["step"] == step]
        images = [way["images"] for way in ways]
        time.plot(images, [way["seconds"] for way in ways], marker="o", label=step)
        memory.plot(images, [way["peak_mb"] for way in ways], marker="o", label=step)
    time.set(xscale="log", yscale="log", xlabel="images of the day", ylabel="seconds")
    memory.set(xscale="log", xlabel="images of the day", ylabel="peak memory of the process, MB")
    memory.set_ylim(bottom=0)
    for axis in (time, memory):
        axis.grid(visible=True, which="major", alpha=0.3)
        axis.legend()
    figure.suptitle(told["title"])
    return _save(figure, path)


def _save(figure: Any, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
