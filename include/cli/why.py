"""`./modlake why`: an image's whole story as a timeline."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from cli.console import out
from cli.settings import DAY_FORMAT, Settings
from localcloud.settings import CloudSettings
from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.s3_uri import split_s3_uri

if TYPE_CHECKING:
    from cli.image_story import ImageDay

_VERDICTS = {"allow": "green", "review": "yellow", "block": "red"}
# A rerun of an unchanged day finds the same jobs, and asks nothing.
_ASKED_AGAIN = (
    "asked again when the day is run with another listing, or with fresh=true, which pays for the whole day"
)
_STATUSES = {"completed": "green", "requested": "yellow", "undone": "cyan", "failed": "red"}


def why(
    image: Annotated[str, typer.Argument(metavar="s3://BUCKET/KEY", help="The image.")],
    day: Annotated[
        datetime | None,
        typer.Option(
            metavar="YYYY-MM-DD", formats=DAY_FORMAT, help="Only this day.", show_default="every day"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows of the tables as JSON.")] = False,
) -> None:
    """Tell an image's whole story: listing, job, labels, decisions, actions, and who took them back."""
    from cli.image_story import published_days, read_story
    from cli.query import open_lake

    if not split_s3_uri(image)[1]:
        raise ModlakeTerminalError(f"{image} is a bucket: name one image, as s3://bucket/key.")
    wanted = str(day.date()) if day else None
    with open_lake(Settings.from_environment(), CloudSettings.from_environment()) as lake:
        story = read_story(lake, image, wanted)
        if not story:
            raise _never_listed(image, wanted, published_days(lake))
    if as_json:
        out.print(json.dumps([_plain(each) for each in story], ensure_ascii=False, default=str), markup=False)
    else:
        out.print(tell(image, story), soft_wrap=False)


def _never_listed(image: str, day: str | None, published: list[str]) -> ModlakeTerminalError:
    if not published:
        known = "No day has been published yet: run ./modlake demo, or moderate_images, first."
    elif day is not None and day not in published:
        known = f"{day} is not published: run moderate_images for it, then ask again."
    else:
        known = (
            f"Days from {published[0]} to {published[-1]} are published. Check the spelling of the key, "
            "which is not URL-encoded, and whether it lies under modlake_ugc_uri. An object that came after "
            "its day was listed appears when moderate_images runs for the day again."
        )
    return ModlakeTerminalError(f"{image} was never listed{f' on {day}' if day else ''}. {known}")


def tell(image: str, story: list[ImageDay]) -> Tree:
    """Return the timeline: a branch a day, in it what happened, in order."""
    tree = Tree(Text(image, style="bold", overflow="fold"), guide_style="dim")
    for each in story:
        branch = tree.add(Text(each.day, style="bold"))
        for step in _steps(each):
            branch.add(step)
    return tree


def _steps(each: ImageDay) -> Iterator[RenderableType]:
    if each.image is None:
        yield Text("not among the images of the published run; what follows is from an earlier one", "yellow")
    else:
        yield _listed(each.image)
        yield from _outcome(each.image)
    if each.labels:
        yield _labels(each.labels)
    elif each.image and each.image["outcome"] in ("judged", "reused"):
        yield Text("labels     none: Rekognition found nothing above the confidence asked for")
    for decision in each.decisions:
        yield _decision(decision)
    if each.image and not each.decisions:
        yield Text("decisions  none yet: enforce_policy has not run for this day", "dim")
    undos = {action["undoes"]: action for action in each.actions if action["undoes"]}
    for action in each.actions:
        if not action["undoes"]:
            yield _action(action, undos.get(action["action_id"]))


def _listed(image: dict[str, Any]) -> Table:
    return _line(
        "listed",
        f"{image['size_bytes']:,} bytes, ETag {image['etag']}, last modified {_time(image['last_modified'])}",
    )


def _outcome(image: dict[str, Any]) -> Iterator[RenderableType]:
    outcome = image["outcome"]
    if outcome in ("ineligible", "failed"):
        yield _line(outcome, f"{image['error_code']}: {image['error_message'] or ''}".rstrip(": "), "red")
        if outcome == "failed":
            yield _line("", _ASKED_AGAIN, "dim")
        return
    if outcome == "reused":
        yield _line("reused", f"from {image['reused_from']}: judged before, nothing was paid again", "cyan")
    engine = image["engine"] or image["job_engine"] or "unknown engine"
    job = f", job {image['job_id']}" if image["job_id"] else ""
    span = ""
    if image["started_at"]:
        span = f", {_time(image['started_at'])} to {_time(image['completed_at'])}"
    cost = f", about ${image['cost_usd']:.4f}" if image["cost_usd"] is not None else ""
    yield _line("judged", f"{_time(image['judged_at'])} by {engine}{job}{span}{cost}")
    adapter = f", adapter {image['adapter_arn']}" if image["adapter_arn"] else ""
    asked = f", labels from {image['min_confidence']:g} %" if image["min_confidence"] is not None else ""
    yield _line("model", f"{image['model_version'] or 'unknown'}{adapter}{asked}")
    kinds = [
        f"{name} {image[column]:.1f} %"
        for name, column in (("Animated", "animated_confidence"), ("Illustrated", "illustrated_confidence"))
        if image[column] is not None
    ]
    if kinds:
        yield _line("content", ", ".join(kinds))


def _labels(labels: list[dict[str, Any]]) -> Group:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for label in labels:
        path = " / ".join(part for part in (label["l1"], label["l2"], label["l3"]) if part)
        table.add_row(Text(_percent(label["confidence"])), Text(path or label["label"]))
    return Group(_line("labels", f"{len(labels)}"), table)


def _decision(decision: dict[str, Any]) -> Table:
    verdict = decision["verdict"]
    by = f"rule {decision['rule']}" if decision["rule"] else "no rule"
    text = Text(verdict, _VERDICTS.get(verdict, ""))
    text.append(
        f" by {decision['policy']} {decision['policy_version']}, {by}, {_time(decision['decided_at'])}",
        "default",
    )
    if decision["mode"] != "live":
        text.append(f" ({decision['mode']}: nothing is done)", "dim")
    for reason in decision["reasons"]:
        text.append(f"\nbecause of {reason['label']} {_percent(reason['confidence'])}", "default")
    return _line("decided", text)


def _action(action: dict[str, Any], undo: dict[str, Any] | None) -> Group:
    text = Text(f"{action['kind']}, {_time(action['completed_at'] or action['requested_at'])}")
    approved = f", approved by {by}" if (by := action["detail"].get("approved_by")) else ""
    text.append(f" by {action['actor']}{approved}: ")
    text.append(action["status"], _STATUSES.get(action["status"], "yellow"))
    text.append(f"\n{_target(action)}")
    text.append(f"\n{action['action_id']}", "dim")
    if message := action["detail"].get("message"):
        text.append(f"\n{message}")
    lines = [_line("action", text)]
    if undo is not None:
        told = Text(f"{_time(undo['completed_at'] or undo['requested_at'])} by {undo['actor']}", "cyan")
        told.append(f": {undo['reason']}" if undo["reason"] else ", no reason given", "default")
        if undo["status"] != "completed":
            told.append(f" ({undo['status']})", "yellow")
        if message := undo["detail"].get("message"):
            told.append(f"\n{message}", "default")
        lines.append(_line("taken back", told))
    return Group(*lines)


def _target(action: dict[str, Any]) -> str:
    detail = action["detail"]
    return str(detail.get("quarantined_as") or detail.get("item_uri") or action["target"])


def _line(name: str, text: str | Text, style: str = "") -> Table:
    """Return a name and what is told of it; what doesn't fit goes on below, beside the name."""
    line = Table.grid(padding=(0, 1, 0, 0))
    line.add_column(width=10, style="dim")
    line.add_column(overflow="fold")
    line.add_row(name, text if isinstance(text, Text) else Text(text, style))
    return line


def _percent(confidence: float | None) -> str:
    return "?" if confidence is None else f"{confidence:.1f} %"


def _time(value: datetime | None) -> str:
    return f"{value:%Y-%m-%d %H:%M:%S}" if value else "unknown time"


def _plain(each: ImageDay) -> dict[str, Any]:
    return {
        "day": each.day,
        "image": _values(each.image) if each.image else None,
        **{
            name: [_values(row) for row in getattr(each, name)] for name in ("labels", "decisions", "actions")
        },
    }


def _values(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, date | datetime) else value
        for name, value in row.items()
    }
