"""What a published day holds, for a person to read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from rich.console import Console

from cli.query import Lake, Rows
from cli.rows import Format, write

OUTCOMES = """
SELECT outcome, error_code AS reason, count(*) AS images
FROM images WHERE day = $day
GROUP BY outcome, error_code
ORDER BY outcome <> 'judged', outcome, images DESC, reason"""

LABELS = """
SELECT taxonomy_level AS level, label, count(*) AS images, round(min(confidence), 1) AS lowest,
    round(avg(confidence), 1) AS mean, round(max(confidence), 1) AS highest
FROM labels WHERE day = $day
GROUP BY taxonomy_level, label
ORDER BY level, images DESC, label"""

CONTENT_TYPES = """
FROM (
    SELECT 'Animated' AS content_type, count(animated_confidence) AS images,
        round(avg(animated_confidence), 1) AS mean_confidence
    FROM images WHERE day = $day
    UNION ALL
    SELECT 'Illustrated', count(illustrated_confidence), round(avg(illustrated_confidence), 1)
    FROM images WHERE day = $day
)
WHERE images > 0
ORDER BY content_type"""

JOBS = """
SELECT job_name AS job, engine, status, image_count AS images, judged_count AS judged, failed_count AS failed,
    round(date_diff('millisecond', started_at, completed_at) / 1000, 1) AS seconds,
    estimated_cost_usd AS cost_usd
FROM jobs WHERE day = $day
ORDER BY shard"""

VERDICTS = """
SELECT policy, mode, verdict, rule, count(*) AS images
FROM decisions WHERE day = $day
GROUP BY policy, mode, verdict, rule
ORDER BY mode, policy, verdict <> 'block', verdict <> 'review', images DESC, rule"""

EXAMPLE = "SELECT l1, label, count(*) AS images FROM labels WHERE confidence >= 90 GROUP BY ALL ORDER BY ALL"


@dataclass(frozen=True, slots=True)
class Report:
    """The tables' answers about one day."""

    day: date
    outcomes: Rows
    labels: Rows
    content_types: Rows
    verdicts: Rows
    jobs: Rows
    locations: dict[str, str]


def read_report(lake: Lake, day: date) -> Report:
    """Asks the lake about the day; raises ModlakeTerminalError when nothing was ever published."""
    return Report(
        day=day,
        outcomes=lake.query(OUTCOMES, day=day),
        labels=lake.query(LABELS, day=day),
        content_types=lake.query(CONTENT_TYPES, day=day),
        verdicts=lake.query(VERDICTS, day=day),
        jobs=lake.query(JOBS, day=day),
        locations=lake.locations,
    )


def show(report: Report, console: Console) -> None:
    """Prints the report, and how to go on from it."""
    images = sum(record["images"] for record in report.outcomes.records())
    console.print(f"\n[bold]{report.day}[/]: {images} images")
    for title, rows in (
        ("Outcomes", report.outcomes),
        ("Labels", report.labels),
        ("Content types", report.content_types),
        ("Verdicts", report.verdicts),
        ("Jobs", report.jobs),
    ):
        console.print(f"\n[bold]{title}[/]" + ("" if rows.rows else ": none"))
        if rows.rows:
            write(rows, Format.table, console)
    cost = sum(record["cost_usd"] or 0 for record in report.jobs.records())
    console.print(f"\nEstimated cost on AWS: {cost:.3f} USD (here nothing is paid: the cloud is local)")
    console.print("\n[bold]Tables[/]")
    for name, location in sorted(report.locations.items()):
        console.print(f"{name:<12} {location}", markup=False)
    console.print(f'\nGo on with:\n  ./modlake query "{EXAMPLE}"', markup=False)
