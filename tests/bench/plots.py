"""Pictures of what benches told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

OURS, OTHERS = "#1f6feb", "#9aa4b2"


def plot(told: dict[str, Any], path: Path) -> Path | None:
    """Draw a bench's ways, rate and memory, or its curves; None when there is nothing to draw."""
    ways = told["ways"]
    if "step" in ways[0]:
        return _curves(told, path)
    rate = next((name for name in ("per_second", "images_per_second") if name in ways[0]), None)
    if rate is None:
        return None
    has_memory = "peak_mb" in ways[0]
    figure, axes = plt.subplots(
        1, 1 + has_memory, figsize=(6 + 5 * has_memory, 0.5 * len(ways) + 1.6), squeeze=False
    )
    unit = told.get("unit", "images")
    _bars(axes[0][0], ways, rate, f"{unit} a second", "{:,.0f}")
    if has_memory:
        _bars(axes[0][1], ways, "peak_mb", "peak memory of the process, MB", "{:,.0f}")
        axes[0][1].set_yticklabels([])
    figure.suptitle(told["title"])
    return _save(figure, path)


def _bars(axis: Axes, ways: list[dict[str, Any]], field: str, label: str, form: str) -> None:
    names = [way["way"] for way in ways]
    values = [way[field] for way in ways]
    colours = [OURS if name.startswith(("modlake", "columns")) else OTHERS for name in names]
    bars = axis.barh(names, values, color=colours)
    axis.bar_label(bars, [form.format(value) for value in values], padding=3, fontsize=8)
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
