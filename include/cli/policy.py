"""The commands `./modlake policy …`: what a policy team tries its rules with."""

from __future__ import annotations

import json
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from cli import policy_apply
from cli.console import Steps, err, out
from cli.rows import Format
from cli.settings import DAY_FORMAT, POLICIES
from localcloud.settings import CloudSettings
from modlake.exceptions import ModlakeTerminalError

if TYPE_CHECKING:
    from cli.policy_backtest import Backtest
    from modlake.policy.policy import Policy

PLOT_SUFFIXES = (".png", ".html")

policy_app = typer.Typer(no_args_is_help=True)
policy_app.command("apply", epilog=policy_apply.EXAMPLE)(policy_apply.apply)


@policy_app.command(epilog="Example: ./modlake policy check include/policies/default.yaml")
def check(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILES]…", help="Policy files.", show_default="include/policies"),
    ] = None,
    min_confidence: Annotated[
        float, typer.Option(min=0, max=100, help="What days are judged with; thresholds below are doubtful.")
    ] = 50.0,
) -> None:
    """Check policies; the exit code is 0 when they can be used, otherwise 1."""
    from modlake.policy.policy_files import check_files

    bodies = _read(files)
    checked = check_files(bodies, min_confidence=min_confidence)
    for problem in checked.warnings:
        err.print(f"[yellow]warning[/] {escape(str(problem))}")
    for problem in checked.errors:
        err.print(f"[red]error[/] {escape(str(problem))}")
    for file, policy in checked.policies.items():
        out.print(
            f"{file}: {policy.name}, {policy.status}, version {policy.version}, "
            f"{len(policy.rules)} rule{'' if len(policy.rules) == 1 else 's'}",
            markup=False,
        )
    if checked.errors:
        raise typer.Exit(1)


@policy_app.command(
    epilog="Example: ./modlake policy backtest minors --from 2026-11-01 --to 2026-11-30 --plot minors.png"
)
def backtest(
    policy: Annotated[
        str, typer.Argument(metavar="POLICY", help="A policy file, or a name in include/policies.")
    ],
    first: Annotated[datetime, typer.Option("--from", formats=DAY_FORMAT, help="The first day.")],
    last: Annotated[datetime, typer.Option("--to", formats=DAY_FORMAT, help="The last day too.")],
    against: Annotated[
        str | None,
        typer.Option(metavar="POLICY", help="The policy to compare with.", show_default="the live one"),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write every count by day to this file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw it to this file, .png or .html.")] = None,
    output_format: Annotated[
        Format, typer.Option("--format", help="How to print the counts.")
    ] = Format.table,
) -> None:
    """Try a policy on stored labels: what it would hit, and how that differs. Scans and stores nothing."""
    days = first.date(), last.date()
    if days[0] > days[1]:
        raise ModlakeTerminalError(f"{days[0]} comes after {days[1]}: give the first day as --from.")
    if plot and plot.suffix not in PLOT_SUFFIXES:
        raise ModlakeTerminalError(f"{plot} is neither a .png nor a .html: name the plot so.")
    candidate = _policy(policy)
    other = _policy(against) if against else _live()
    result = _run(candidate, other, *days)
    from cli import policy_report

    policy_report.show(result, output_format)
    if csv:
        policy_report.write_csv(result, csv)
        err.print(f"Counts by day: {csv}", markup=False)
    if plot:
        policy_report.write_plot(result, plot)
        err.print(f"Plot: {plot}", markup=False)


@policy_app.command(epilog="Example: ./modlake policy schema > include/policies/policy.schema.json")
def schema() -> None:
    """Print the JSON Schema of policy files, by which editors complete them."""
    from modlake.policy.schema import policy_schema

    out.file.write(json.dumps(policy_schema(), indent=2, ensure_ascii=False) + "\n")


def _run(candidate: Policy, other: Policy | None, first: date, last: date) -> Backtest:
    from cli.lake_catalog import open_lake_catalog

    catalog = open_lake_catalog(CloudSettings.from_environment())
    # Only now: what pyiceberg's variables say is read when it is imported.
    from cli.policy_backtest import run

    with Steps() as steps, steps.step("Backtest") as step:
        result = run(catalog, candidate, other, first, last, step.advance)
        step.result = f"{result.images} images of {len(result.days)} days"
    return result


def _read(files: list[Path] | None) -> dict[str, bytes]:
    from modlake.policy.policy_files import read_folder

    if files:
        try:
            return {str(file): file.read_bytes() for file in files}
        except OSError as error:
            raise ModlakeTerminalError(
                f"{error.filename} can't be read ({error.strerror}): name a policy file."
            ) from error
    bodies = read_folder(None, str(POLICIES))
    if not bodies:
        raise ModlakeTerminalError(f"No policy stands in {POLICIES}: put one there, or name files.")
    return {_shortened(Path(name)): body for name, body in bodies.items()}


def _shortened(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _policy(named: str) -> Policy:
    """The policy of a file, or the one of that name in include/policies."""
    from modlake.policy.policy_files import load_policies, load_policy

    if Path(named).exists():
        return load_policy(None, named)
    policies = {policy.name: policy for policy in load_policies(None, str(POLICIES))}
    if named not in policies:
        raise ModlakeTerminalError(
            f"{named} is neither a file nor a policy in include/policies; there are {', '.join(policies)}."
        )
    return policies[named]


def _live() -> Policy | None:
    from modlake.policy.policy_files import load_policies

    live = [policy for policy in load_policies(None, str(POLICIES)) if policy.status == "live"]
    if len(live) > 1:
        names = ", ".join(policy.name for policy in live)
        raise ModlakeTerminalError(f"Several policies are live ({names}): name one with --against.")
    return live[0] if live else None
