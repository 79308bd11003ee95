"""A backtest as tables, as CSV and as a plot that a policy team can discuss."""

from __future__ import annotations

import html
import io
from collections import Counter
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from cli.console import err, out
from cli.policy_backtest import Backtest, By
from cli.query import Rows
from cli.rows import Format, write
from modlake.policy.policy import Policy, Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DAY_COLUMNS = [
    "day", "images", "block", "review", "newly_hit", "released", "reclassified", "others_hits", "unanswerable"
]  # fmt: skip
_HIT_COLUMNS = ["policy", "name", "verdict", "images", "others_allow"]
_CSV_COLUMNS = ["day", "policy", "policy_version", "by", "name", "verdict", "images", "others_allow"]
_MOST_BARS = 12
_COLOURS = {
    "block": "#b2182b",
    "review": "#ef8a62",
    "newly": "#b2182b",
    "released": "#2166ac",
    "reclassified": "#bdbdbd",
    "other": "#404040",
}


def show(result: Backtest, output_format: Format) -> None:
    """Prints the counts by day, rule and label; JSON and CSV are the rows of ``write_csv``."""
    if output_format is not Format.table:
        write(_tidy(result), output_format, out)
    else:
        _title("By day")
        write(_by_day(result), output_format, out)
        for by in ("rule", "label"):
            _title(f"By {by}")
            write(_by_name(result, by), output_format, out)
    for warning in warnings(result):
        err.print(f"[yellow]![/] {warning}", highlight=False)


def warnings(result: Backtest) -> list[str]:
    """What the counts can't tell."""
    told = []
    unsure = [
        f"{day} ({counts.unanswerable} images)" for day, counts in result.days.items() if counts.unanswerable
    ]
    if unsure:
        told.append(
            "Can't answer in full, because images were judged with a min_confidence above the lowest "
            f"threshold, {result.floor:g}: {_listed(unsure)}. What they would hit below it is not counted."
        )
    if result.unpublished:
        told.append(
            f"No published run: {_listed(map(str, result.unpublished))}. Moderate these days to count them."
        )
    return told


def write_csv(result: Backtest, path: Path) -> None:
    """Writes a row for each day, policy, and rule or label, also the totals by verdict, as CSV."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        write(_tidy(result), Format.csv, Console(file=stream))


def write_plot(result: Backtest, path: Path) -> None:
    """Draws the days, and what hit; an HTML page also has the tables, and needs nothing else."""
    figure = _figure(result)
    if path.suffix == ".png":
        figure.savefig(path, dpi=130)
        return
    svg = io.StringIO()
    figure.savefig(svg, format="svg")
    drawing = svg.getvalue()[svg.getvalue().index("<svg") :]
    tables = [
        ("By day", _by_day(result)),
        ("By rule", _by_name(result, "rule")),
        ("By label", _by_name(result, "label")),
    ]
    parts = [f"<h2>{title}</h2>{_html_table(rows)}" for title, rows in tables]
    notes = "".join(f"<p>{html.escape(text)}</p>" for text in warnings(result))
    page = (
        f'<!doctype html><meta charset="utf-8"><title>{html.escape(_heading(result))}</title>'
        "<style>body{font:14px sans-serif;margin:2em}svg{max-width:100%;height:auto}"
        "table{border-collapse:collapse}td,th{padding:.2em .8em;border-bottom:1px solid #ddd;text-align:left}"
        f".n{{text-align:right}}</style>{drawing}{notes}{''.join(parts)}"
    )
    path.write_text(page, encoding="utf-8")


def _by_day(result: Backtest) -> Rows:
    rows: list[tuple[Any, ...]] = [
        (
            day,
            counts.images,
            counts.verdicts(Verdict.BLOCK),
            counts.verdicts(Verdict.REVIEW),
            counts.newly_hit,
            counts.released,
            counts.reclassified,
            counts.others_hits(),
            counts.unanswerable,
        )
        for day, counts in result.days.items()
    ]
    if len(rows) > 1:
        rows.append(("all", *(sum(row[place] for row in rows) for place in range(1, len(_DAY_COLUMNS)))))
    wanted = [
        place for place, name in enumerate(_DAY_COLUMNS) if result.other or name not in _DAY_COLUMNS[4:8]
    ]
    return Rows(
        [_DAY_COLUMNS[place] for place in wanted], [tuple(row[place] for place in wanted) for row in rows]
    )


def _by_name(result: Backtest, by: By) -> Rows:
    """Sums over the days: this policy's first, the most hits first."""
    summed: Counter[tuple[str, str, str]] = Counter()
    differing: Counter[tuple[str, str, str]] = Counter()
    for hits, images in result.hits.items():
        if hits.by == by:
            key = (hits.policy, hits.name, hits.verdict)
            summed[key] += images
            differing[key] += result.differing[hits]
    ranked = sorted(summed, key=lambda key: (key[0] != result.shown(result.policy), -summed[key], key))
    return Rows(_HIT_COLUMNS, [(*key, summed[key], differing[key]) for key in ranked])


def _tidy(result: Backtest) -> Rows:
    named = {result.shown(each): (each.name, each.version) for each in _policies(result)}
    rows: list[tuple[Any, ...]] = []
    for day, counts in result.days.items():
        for verdict in Verdict:
            images = counts.verdicts(verdict)
            policy = result.policy.name, result.policy.version
            rows.append((day, *policy, "verdict", "", str(verdict), images, None))
    for hits, images in sorted(result.hits.items()):
        rows.append(
            (
                hits.day,
                *named[hits.policy],
                hits.by,
                hits.name,
                hits.verdict,
                images,
                result.differing[hits],
            )
        )
    return Rows(_CSV_COLUMNS, sorted(rows, key=lambda row: row[:6]))


def _policies(result: Backtest) -> list[Policy]:
    return [result.policy, *([result.other] if result.other else [])]


def _figure(result: Backtest) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 10), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(_heading(result), fontsize=13)
    rows = figure.subplot_mosaic([["days", "days"], ["changes", "changes"], ["rules", "labels"]])
    _draw_days(rows["days"], result)
    _draw_changes(rows["changes"], result)
    _draw_names(rows["rules"], result, "rule")
    _draw_names(rows["labels"], result, "label")
    return figure


def _draw_days(axes: Axes, result: Backtest) -> None:
    days = list(result.days)
    blocked = [counts.verdicts(Verdict.BLOCK) for counts in result.days.values()]
    reviewed = [counts.verdicts(Verdict.REVIEW) for counts in result.days.values()]
    places = range(len(days))
    name = result.shown(result.policy)
    axes.bar(places, blocked, color=_COLOURS["block"], label=f"{name}: block")
    axes.bar(places, reviewed, bottom=blocked, color=_COLOURS["review"], label=f"{name}: review")
    if result.other:
        hits = [counts.others_hits() for counts in result.days.values()]
        axes.plot(
            places,
            hits,
            "o-",
            color=_COLOURS["other"],
            markersize=4,
            linewidth=1,
            label=f"{result.shown(result.other)}: block or review",
        )
    _name_days(axes, days)
    axes.set_title("Images hit, by day", loc="left", fontsize=11)
    axes.set_ylabel("images")
    axes.legend(fontsize=9, frameon=False, ncols=3, loc="upper right", bbox_to_anchor=(1.0, 1.14))


def _draw_changes(axes: Axes, result: Backtest) -> None:
    from matplotlib.ticker import MaxNLocator

    days = list(result.days)
    axes.axhline(0, color="black", linewidth=0.8)
    if result.other:
        newly = [counts.newly_hit for counts in result.days.values()]
        released = [-counts.released for counts in result.days.values()]
        reclassified = [counts.reclassified for counts in result.days.values()]
        places = range(len(days))
        axes.bar(places, newly, color=_COLOURS["newly"], label="newly hit")
        axes.bar(
            places,
            reclassified,
            bottom=newly,
            color=_COLOURS["reclassified"],
            label="hit with another verdict",
        )
        axes.bar(places, released, color=_COLOURS["released"], label="released")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize=9, frameon=False, ncols=3, loc="upper right", bbox_to_anchor=(1.0, 1.14))
        axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):,.0f}")
    _name_days(axes, days)
    against = f"Against {result.shown(result.other)}" if result.other else "Against no other policy"
    axes.set_title(against, loc="left", fontsize=11)
    axes.set_ylabel("images")


def _draw_names(axes: Axes, result: Backtest, by: By) -> None:
    rows = [row for row in _by_name(result, by).rows if row[0] == result.shown(result.policy)][:_MOST_BARS][
        ::-1
    ]
    names = [f"{name} ({verdict})" for _, name, verdict, _, _ in rows]
    places = range(len(rows))
    axes.barh(places, [row[3] for row in rows], color="#bdbdbd", label="hit")
    if result.other:
        axes.barh(places, [row[4] for row in rows], color=_COLOURS["newly"], label="of them newly")
    axes.set_yticks(list(places), names, fontsize=8)
    axes.set_title(f"By {by}, all days", loc="left", fontsize=11)
    axes.set_xlabel("images")
    axes.legend(fontsize=8, frameon=False, loc="lower right")


def _name_days(axes: Axes, days: list[date]) -> None:
    step = max(1, -(-len(days) // 10))
    axes.set_xticks(range(0, len(days), step), [day.isoformat() for day in days[::step]], fontsize=8)
    axes.set_xlim(-0.6, max(len(days), 1) - 0.4)
    axes.spines[["top", "right"]].set_visible(False)


def _heading(result: Backtest) -> str:
    told = " against ".join(f"{each.name} {each.version}" for each in _policies(result))
    days = list(result.days)
    return f"{told}: {result.images:,} images, {days[0]} to {days[-1]}" if days else f"{told}: no days"


def _html_table(rows: Rows) -> str:
    def cell(tag: str, value: Any) -> str:
        kind = ' class="n"' if isinstance(value, int) else ""
        return f"<{tag}{kind}>{html.escape(str(value))}</{tag}>"

    lines = ["".join(cell("th", name) for name in rows.columns)]
    lines += ["".join(cell("td", value) for value in row) for row in rows.rows]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _title(text: str) -> None:
    out.print(f"\n[bold]{text}[/]" if out.is_terminal else f"# {text}")


def _listed(texts: Iterable[str]) -> str:
    every = list(texts)
    return ", ".join(every) if len(every) <= 10 else f"{', '.join(every[:9])} and {len(every) - 9} more"
