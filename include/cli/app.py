"""The command line `./modlake`: what there is to call."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated

import typer
from rich.markup import escape

from cli.console import Steps, err, out
from cli.errors import Commands
from cli.policy import policy_app
from cli.rows import Format, write
from cli.settings import DAY_FORMAT, Settings, yesterday
from cli.undo import undo
from cli.why import why
from localcloud import cloud
from localcloud.settings import CloudSettings
from modlake.exceptions import ModlakeTerminalError

PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
# From the first argument on all is another program's, --help too.
PASS_ALL_ON = {**PASS_ON, "allow_interspersed_args": False}

app = typer.Typer(
    cls=Commands,
    name="modlake",
    help="Moderates a day of user-generated images: Airflow, Rekognition and an Iceberg lake on one machine.",
    epilog="Begin with: ./modlake demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(
    policy_app,
    name="policy",
    help="The moderation policies: check them, and try them on stored labels.",
    epilog="Example: ./modlake policy check",
)
cloud_app = typer.Typer(no_args_is_help=True)
app.add_typer(
    cloud_app,
    name="cloud",
    help="The local cloud alone: S3 and Rekognition on 127.0.0.1.",
    epilog='Example: ./modlake cloud start && eval "$(./modlake cloud env)" && aws s3 ls',
)

Day = Annotated[
    datetime | None,
    typer.Option(metavar="YYYY-MM-DD", formats=DAY_FORMAT, help="The day, UTC.", show_default="yesterday"),
]
Images = Annotated[int, typer.Option(min=0, help="How many objects the day holds.")]


class Reprocess(StrEnum):
    none = "none"
    completed = "completed"
    failed = "failed"


@app.command(epilog="Example: ./modlake demo --day 2026-11-21 --images 500")
def demo(day: Day = None, images: Images = 200) -> None:
    """Moderate a day of sample images, from nothing to the tables, and show what came of it.

    Starts the local cloud and PostgreSQL, uploads the day, and runs the DAG in the Airflow that is up, or by
    itself. A second run of the same day starts no new job and publishes the same tables.
    """
    from cli.demo import demo as run_demo

    run_demo(Settings.from_environment(), CloudSettings.from_environment(), _day(day), images)


@app.command(context_settings=PASS_ON, epilog="Example: ./modlake test -m 'not integration' -x")
def test(context: typer.Context) -> None:
    """Check format, lint, types and imports and run the tests; arguments go to pytest."""
    from cli import checks

    if not checks.run(checks.stages(context.args)):
        raise typer.Exit(1)


@app.command(epilog="Example: MODLAKE_AIRFLOW_PORT=9080 ./modlake up")
def up() -> None:
    """Start Airflow for development, with PostgreSQL and the local cloud; print address and login."""
    from cli import airflow_processes, environment
    from cli.credentials import ADMIN, Credentials

    settings = Settings.from_environment()
    environment.up(settings, CloudSettings.from_environment())
    out.print(f"\nAirflow is up: [bold]{airflow_processes.address(settings)}[/]")
    out.print(f"user: {ADMIN}\npassword: {Credentials.of(settings).admin_password}", markup=False)
    out.print("Stop it with ./modlake down; the data stays.")


@app.command(epilog="Example: ./modlake down")
def down() -> None:
    """Stop what `up` and `demo` have started, and nothing else; the data stays."""
    from cli import environment

    environment.down(Settings.from_environment(), CloudSettings.from_environment())


@app.command(epilog="Example: ./modlake status && ./modlake backfill 2026-11-17 2026-11-21")
def status() -> None:
    """Show every component; the exit code is 0 when all of them work, otherwise 1."""
    from cli.status import components as look

    components = look(Settings.from_environment(), CloudSettings.from_environment())
    for component in components:
        colour = "green" if component.works else "red"
        pid = component.pid or "-"
        out.print(
            f"{component.name:<21} [{colour}]{component.state:<13}[/] {pid:>7}  {escape(component.where)}"
        )
    if not all(component.works for component in components):
        raise typer.Exit(1)


@app.command(
    context_settings=PASS_ALL_ON,
    epilog="""Example: ./modlake airflow dags trigger enforce_policy --conf '{"day": "2026-11-21"}'""",
)
def airflow(context: typer.Context) -> None:
    """Run Airflow's own command line on the Airflow of `up`; arguments go to it, its exit code comes back.

    Without arguments it lists its commands.
    """
    from cli import airflow_command_line

    airflow_command_line.run(Settings.from_environment(), CloudSettings.from_environment(), context.args)


@app.command(epilog="Example: ./modlake doctor --aws --json")
def doctor(
    aws: Annotated[
        bool, typer.Option("--aws", help="Examine what the environment describes instead of the local cloud.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as a JSON array.")] = False,
    adapter_arn: Annotated[str | None, typer.Option(help="Also check this adapter's status.")] = None,
    kms_key_id: Annotated[str | None, typer.Option(help="Also check this KMS key.")] = None,
) -> None:
    """Check an installation before its first night; the exit code is 0 when nothing has failed, otherwise 1.

    Asks AWS, or the local cloud, only what costs nothing, and removes the scratch objects it makes.
    """
    from cli.doctor.command import run
    from cli.doctor.installation import of_checkout, of_environment

    settings = Settings.from_environment()
    found = (
        of_environment(settings, os.environ)
        if aws
        else of_checkout(settings, CloudSettings.from_environment(), os.environ)
    )
    if not run(replace(found, adapter_arn=adapter_arn, kms_key_id=kms_key_id), as_json=as_json):
        raise typer.Exit(1)


@app.command(epilog="Example: ./modlake seed --day 2026-11-21 --images 1000")
def seed(day: Day = None, images: Images = 200) -> None:
    """Upload a day of sample images to the local cloud, varied so that every object is another one."""
    from cli.demo import seed as upload

    settings = CloudSettings.from_environment()
    if not cloud.status(settings).running:
        raise ModlakeTerminalError("The local cloud is not running: start it with ./modlake cloud start.")
    with Steps() as steps:
        upload(settings, _day(day), images, steps)


@app.command(epilog="Example: ./modlake backfill 2026-11-17 2026-11-21 --reprocess completed")
def backfill(
    first: Annotated[datetime, typer.Argument(metavar="FROM", formats=DAY_FORMAT, help="The first day.")],
    last: Annotated[datetime, typer.Argument(metavar="TO", formats=DAY_FORMAT, help="The last day too.")],
    reprocess: Annotated[
        Reprocess, typer.Option(help="Which days to run again that have a run already.")
    ] = Reprocess.none,
    max_active_runs: Annotated[int, typer.Option(min=1, help="How many days to run at a time.")] = 2,
) -> None:
    """Have the running Airflow backfill a range of days, and watch it; Ctrl-C leaves it running."""
    from cli.watch_backfill import run

    succeeded = run(
        Settings.from_environment(),
        first.date(),
        last.date(),
        reprocess=reprocess.value,
        max_active_runs=max_active_runs,
    )
    if not succeeded:
        raise typer.Exit(1)


@app.command(epilog='Example: ./modlake query "SELECT outcome, count(*) FROM images GROUP BY 1" --format csv')
def query(
    sql: Annotated[str | None, typer.Argument(metavar="SQL", help="One SELECT.")] = None,
    output_format: Annotated[Format, typer.Option("--format", help="How to print the rows.")] = Format.table,
) -> None:
    """Run SQL over the lake's tables by their names; without SQL, list the tables and their columns."""
    from cli.query import open_lake

    with open_lake(Settings.from_environment(), CloudSettings.from_environment()) as lake:
        rows = lake.columns() if sql is None else lake.query(sql)
    write(rows, output_format, out)
    if out.is_terminal:
        err.print(f"[dim]rows: {len(rows.rows)}[/]")


app.command(epilog="Example: ./modlake why s3://modlake-ugc/uploads/2026-11-21/a.jpg")(why)
app.command(epilog="Example: ./modlake undo --day 2026-11-21 --rule nudity --reason 'appeals' --dry-run")(
    undo
)


@app.command(epilog="Example: ./modlake bench listing --size 1000000")
def bench(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="All, by default.")] = None,
    size: Annotated[int | None, typer.Option(min=1, help="Images of the day.")] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="Tiny: whether all ways do the same.")] = False,
) -> None:
    """Measure Modlake against what people use; table, JSON and plot of each bench go to .modlake/bench/."""
    from cli.bench import bench as run_benches

    raise typer.Exit(run_benches(Settings.from_environment(), names or [], size, smoke=smoke))


@app.command(epilog="Example: ./modlake soak --minutes 30")
def soak(
    minutes: Annotated[float, typer.Option(min=0.1, help="How long, at least.")] = 10.0,
    seed: Annotated[
        int | None, typer.Option(help="Repeat the choices of an earlier soak.", show_default="a new one")
    ] = None,
    kill_airflow: Annotated[
        bool, typer.Option("--kill-airflow", help="Also kill the processes of an Airflow; takes 10 min more.")
    ] = False,
) -> None:
    """Break a pipeline and a local cloud of its own, again and again, and report whether anything was lost.

    Faults by a seeded plan, SIGKILL of workers and servers; tables and bill are checked after each step.
    """
    from cli import soak as soaking

    result = soaking.soak(Settings.from_environment(), minutes, seed, kill_airflow=kill_airflow)
    soaking.show(result, out)
    if not result.held:
        raise typer.Exit(1)


@cloud_app.command("start")
def cloud_start() -> None:
    """Start S3 and Rekognition."""
    settings = CloudSettings.from_environment()
    with Steps() as steps, steps.step("Local cloud") as step:
        cloud.start(settings, step.report)
        step.result = f"S3 {settings.s3_endpoint}, Rekognition {settings.rekognition_endpoint}"


@cloud_app.command("stop")
def cloud_stop() -> None:
    """Stop both; objects, jobs and answers stay."""
    with Steps() as steps, steps.step("Local cloud") as step:
        cloud.stop(CloudSettings.from_environment(), step.report)
        step.result = "stopped"


@cloud_app.command("status")
def cloud_status() -> None:
    """Show both; the exit code is 0 when they answer, otherwise 1."""
    servers = cloud.status(CloudSettings.from_environment())
    for server in (servers.s3, servers.rekognition):
        out.print(
            f"{server.name:<21} {server.state:<13} {server.pid or '-':>7}  {server.endpoint}", markup=False
        )
    if not servers.running:
        raise typer.Exit(1)


@cloud_app.command("env", epilog='Example: eval "$(./modlake cloud env)"')
def cloud_env() -> None:
    """Print the exports with which the `aws` CLI and boto3 talk to the local cloud."""
    for name, value in cloud.environment(CloudSettings.from_environment()).items():
        out.print(f"export {name}={shlex.quote(value)}", markup=False)


def _day(given: datetime | None) -> date:
    """The given day; raises ModlakeTerminalError for one that has not begun."""
    if given is None:
        return yesterday()
    if given.date() > datetime.now(UTC).date():
        raise ModlakeTerminalError(f"{given.date()} lies in the future; give a day that has begun (UTC).")
    return given.date()


def main() -> None:
    app(prog_name="./modlake")
