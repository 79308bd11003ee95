"""`./modlake undo`: takes actions back, and writes down who did and why."""

from __future__ import annotations

import getpass
import os
import sys
import uuid
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import Step, Steps, err, out
from cli.lake_catalog import open_lake_catalog
from cli.query import Rows
from cli.rows import Format, write
from cli.rules import NO_RULE
from cli.settings import DAY_FORMAT, Settings
from localcloud.settings import CloudSettings
from modlake.exceptions import ModlakeTerminalError

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

    from cli.doctor.installation import Installation
    from modlake.policy.actions.taking_back import TakingBack, UndoPlan
    from modlake.policy.intents import ActionResult

HANDFUL = 10
"""So many actions are taken back without a question."""
SHOWN = 20
INTENTS_PER_BATCH = 1_000

_WHAT_HAPPENS = {
    "tag": "set the tag back",
    "quarantine": "move the image back",
    "review_queue": "withdraw it from the queue",
    "notify_sns": "send a retraction",
    "notify_sqs": "send a retraction",
    "notify_webhook": "send a retraction",
}


def undo(
    day: Annotated[
        datetime | None,
        typer.Option(metavar="YYYY-MM-DD", formats=DAY_FORMAT, help="Actions of this day."),
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(help=f"Actions of this rule, or of '{NO_RULE}': default and unjudged. Needs --day."),
    ] = None,
    action: Annotated[str | None, typer.Option(metavar="ID", help="One action, by its id.")] = None,
    image: Annotated[
        str | None, typer.Option(metavar="s3://…", help="Actions on this image, of every day or of --day.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why; it stays with the actions.")] = None,
    actor: Annotated[str | None, typer.Option(help="Who takes them back.", show_default="$USER")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and end.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help=f"Don't ask, also above {HANDFUL} actions.")] = False,
    aws: Annotated[
        bool, typer.Option("--aws", help="Use what the environment describes instead of the local cloud.")
    ] = False,
) -> None:
    """Take moderation actions back: tags, quarantine, queue, notifications; by rule, action or image.

    Images come back byte for byte, with metadata and tags, unless something new lies in their place. To say
    it again goes on with what is left. The exit code is 0 when all of them are taken back, otherwise 1.
    """
    from modlake.policy.actions.taking_back import plan_undo

    _check_selection(day, rule, action, image)
    cloud_settings = CloudSettings.from_environment()
    installation = _installation(Settings.from_environment(), cloud_settings, aws=aws)
    catalog = _described_catalog() if aws else open_lake_catalog(cloud_settings)
    rows = _selected(catalog, day.date() if day else None, rule, action, image)
    plan = plan_undo(rows, actor=actor or getpass.getuser(), reason=reason, now=datetime.now(UTC))
    _show(plan)
    if dry_run or not plan.days:
        return
    work_uri = installation.variable("modlake_work_uri")
    _confirm(len(plan.originals), yes=yes)
    results: list[ActionResult] = []
    with Steps() as steps:
        for each in plan.days:
            with steps.step(f"Undo {each.day}") as step:
                results += _take_back(installation, work_uri, catalog, each, step)
    if not _tell(results):
        raise typer.Exit(1)


def _check_selection(day: object, rule: str | None, action: str | None, image: str | None) -> None:
    chosen = [name for name, value in (("--rule", rule), ("--action", action), ("--image", image)) if value]
    if len(chosen) != 1 or (rule and not day):
        raise ModlakeTerminalError(
            "Say what to take back: --day YYYY-MM-DD --rule RULE, or --action ID, or --image s3://bucket/key."
        )


def _installation(settings: Settings, cloud: CloudSettings, *, aws: bool) -> Installation:
    from cli.doctor.installation import of_checkout, of_environment

    found = of_environment(settings, os.environ) if aws else of_checkout(settings, cloud, os.environ)
    os.environ.update(found.environment)  # Airflow's hooks read it
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")  # what they do is told here
    return found


def _described_catalog() -> Catalog:
    from modlake.lake.catalog import open_catalog

    return open_catalog()


def _selected(
    catalog: Catalog, day: date | None, rule: str | None, action: str | None, image: str | None
) -> list[dict[str, Any]]:
    from modlake.lake.actions import read_actions
    from modlake.lake.catalog import ensure_tables

    ensure_tables(catalog)
    images = [image] if image else None
    if action:
        images = [
            row["source_ref"] for row in read_actions(catalog, day=day, action_ids=[action]).to_pylist()
        ]
    rows = read_actions(catalog, day=day, source_refs=images).to_pylist()
    found = [row for row in rows if rule in (None, _rule(row)) and action in (None, row["action_id"])]
    if not found:
        asked = {"--day": day, "--rule": rule, "--action": action, "--image": image}
        selection = " ".join(f"{option} {value}" for option, value in asked.items() if value)
        rules = sorted({_rule(row) for row in rows})
        known = f" The rules of that day are {', '.join(rules)}." if rules else ""
        raise ModlakeTerminalError(
            f"No action meets {selection}.{known} The table actions has all of them: see ./modlake query."
        )
    undone = next((row["undoes"] for row in found if row["action_id"] == action), None)
    if undone is not None:
        raise ModlakeTerminalError(
            f"{action} takes back {undone} itself: run ./modlake policy apply to decide anew."
        )
    # With all undos on these images: one may have given its image another ETag.
    return [row for row in found if row["undoes"] is None] + [
        row for row in rows if row["undoes"] is not None
    ]


def _rule(row: Mapping[str, Any]) -> str:
    return row["rule"] or NO_RULE


def _show(plan: UndoPlan) -> None:
    columns = ["day", "action", "image", "rule", "what happens"]
    lines = [
        (
            row["day"],
            row["action_id"],
            row["source_ref"],
            _rule(row),
            _WHAT_HAPPENS.get(row["kind"], row["kind"]),
        )
        for row in plan.originals
    ]
    if lines:
        write(Rows(columns, lines[:SHOWN]), Format.table, out)
    if len(lines) > SHOWN:
        kinds = Counter(row["kind"] for row in plan.originals)
        by_kind = ", ".join(f"{kind} {count:,}" for kind, count in sorted(kinds.items()))
        err.print(f"and {len(lines) - SHOWN:,} more; in all {by_kind}", markup=False)
    for status, count in sorted(plan.skipped.items()):
        err.print(f"{count:,} actions are left out: their status is {status}.", markup=False)
    if not lines:
        err.print("Nothing is in effect that could be taken back.")


def _confirm(count: int, *, yes: bool) -> None:
    if yes or count <= HANDFUL:
        return
    if not sys.stdin.isatty():
        raise ModlakeTerminalError(
            f"{count:,} actions would be taken back: look at them with --dry-run, then add --yes."
        )
    typer.confirm(f"Take back {count:,} actions?", abort=True, err=True)


def _take_back(
    installation: Installation, work_uri: str, catalog: Catalog, each: TakingBack, step: Step
) -> list[ActionResult]:
    from modlake.hooks.moderation_actions import ModeratedObjectsHook
    from modlake.hooks.moderation_actions_kinds import action_kinds
    from modlake.lake.actions import add_intents, record_results, still_requested
    from modlake.policy.actions.batch import carry_out
    from modlake.policy.enforcement_folder import EnforcementFolder, read_results, write_intents

    aws = {"aws_conn_id": installation.connection_id}
    store = ModeratedObjectsHook(**aws)
    folder = EnforcementFolder(work_uri, each.day, each.enforcement_id)
    # First, so that nothing is requested in the table where the work bucket can't be written.
    batches = write_intents(store, folder, each.intents, INTENTS_PER_BATCH)
    add_intents(catalog, each.day, each.intents)
    results: list[ActionResult] = []
    try:
        for batch in range(batches):
            results += carry_out(
                store,
                folder,
                batch,
                action_kinds(store, folder, aws),
                holder=f"undo {uuid.uuid4()}",
                still_requested=partial(still_requested, catalog, each.day),
                report=step.report,
            )
    finally:
        record_results(catalog, each.day, read_results(store, folder))
    step.result = (
        f"{sum(result.status == 'completed' for result in results):,} of {len(results):,} taken back"
    )
    return results


def _tell(results: list[ActionResult]) -> bool:
    """Say what was not taken back, and return whether all was."""
    left = [result for result in results if result.status != "completed"]
    for result in left[:SHOWN]:
        err.print(f"{result.undoes}: {result.status}: {result.detail.get('message', '')}", markup=False)
    if len(left) > SHOWN:
        err.print(f"and {len(left) - SHOWN:,} more")
    return not left
