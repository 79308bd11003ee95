"""Run benches: ``./modlake bench``, or ``python -m tests.bench`` with plugins and include on PYTHONPATH."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench import decide, enforcing, growth, landing, layout, ledger, listing, orchestration, publishing
from tests.bench.plots import plot

SMOKE_IMAGES = 300
BENCHES: dict[str, Callable[..., dict[str, Any]]] = {
    "listing": lambda size, home, isolated: listing.run(
        size or 200_000, home=home, isolated=isolated, repeats=3 if isolated else 1
    ),
    "flat-listing": lambda size, home, isolated: listing.run(
        size or 200_000, home=home, isolated=isolated, repeats=3 if isolated else 1, is_flat=True
    ),
    "landing": lambda size, home, isolated: landing.run(
        size or 1_000_000,
        home=home,
        isolated=isolated,
        repeats=3 if isolated else 1,
        images_per_shard=10_000 if isolated else 100,
    ),
    "publishing": lambda size, home, isolated: publishing.run(
        size or 1_000_000, home=home, isolated=isolated, repeats=3 if isolated else 1
    ),
    "layout": lambda size, home, isolated: layout.run(
        size or 1_000_000, home=home, repeats=5 if isolated else 1
    ),
    "growth": lambda size, home, isolated: growth.run(
        (*(each for each in growth.SIZES if each < size), size) if size else growth.SIZES,
        home=home,
        isolated=isolated,
    ),
    "enforcing": lambda size, home, isolated: enforcing.run(
        (*(each for each in enforcing.SIZES if each < size), size) if size else enforcing.SIZES,
        home=home,
        isolated=isolated,
    ),
    "ledger": lambda size, home, isolated: ledger.run(
        (size or 10_000_000) if isolated else 100_000,
        home=home,
        images=1_000_000 if isolated else 20_000,
        isolated=isolated,
    ),
    "orchestration": lambda size, home, isolated: orchestration.run(
        max(1, (size or 1_000_000) // 10_000), job_seconds=30 if isolated else 5
    ),
    "decide": lambda size, home, isolated: {
        "title": "Decide a day by the default policy",
        **decide.run(size or 1_000_000),
    },
}


def run(name: str, home: Path, *, size: int | None = None, smoke: bool = False) -> dict[str, Any]:
    """Run a bench; ``smoke`` in this process and as small as shows that all ways do the same."""
    home.mkdir(parents=True, exist_ok=True)
    return BENCHES[name](SMOKE_IMAGES if smoke else size, home, not smoke)


def main() -> None:
    arguments = _arguments()
    console = Console()
    # What a smoke run tells is no result, and must not replace one.
    home: Path = arguments.home / "smoke" if arguments.smoke else arguments.home
    machine = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
    }
    for name in arguments.names or list(BENCHES):
        console.print(f"[bold]{name}[/] …")
        before = os.getloadavg()[0]
        told = (
            machine
            | {"load_before": round(before, 1)}
            | run(name, home, size=arguments.size, smoke=arguments.smoke)
        )
        path = home / f"{name}.json"
        path.write_text(json.dumps(told, indent=1, default=str) + "\n", encoding="utf-8")
        console.print(table_of(told))
        console.print(f"{path}, {plot(told, home / f'{name}.png')}")
        if before > 1:
            console.print(f"The machine was busy (load {before:.1f}): trust ratios alone.", style="yellow")


def table_of(told: dict[str, Any]) -> Table:
    """Return a bench's ways as a table."""
    ways = told["ways"]
    columns = [name for name in ways[0] if name not in {"note", "all_seconds", "step", "images"}]
    caption = f"times: as fast as {told['yardstick']}" if "yardstick" in told else None
    table = Table(title=told["title"], caption=caption)
    for name in columns:
        table.add_column(name.replace("_", " "), justify="left" if name == "way" else "right")
    for way in ways:
        table.add_row(*(_cell(way[name]) for name in columns))
    return table


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:,}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="modlake bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}; all by default")
    parser.add_argument("--size", type=int, help="images of the day, the bench's own by default")
    parser.add_argument("--smoke", action="store_true", help="tiny, only to see that all ways do the same")
    parser.add_argument("--home", type=Path, default=Path(".modlake/bench"), help="where results and data go")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(BENCHES)
    if unknown:
        sys.exit(f"There is no bench {', '.join(sorted(unknown))}: choose of {', '.join(BENCHES)}.")
    return arguments


if __name__ == "__main__":
    main()
