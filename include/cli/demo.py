"""From nothing to a published day: cloud, database, images, one run of the DAG, and what came of it."""

from __future__ import annotations

from datetime import date

from cli import airflow_processes, environment
from cli.console import Step, Steps, out
from cli.day_run import run_here, run_on_server
from cli.lake_catalog import open_lake_catalog
from cli.policy_apply import decide, policies, summary
from cli.query import open_lake
from cli.report import read_report, show
from cli.seed import s3_client, seed_day
from cli.settings import Settings
from localcloud import cloud
from localcloud.settings import CloudSettings


def demo(settings: Settings, cloud_settings: CloudSettings, day: date, images: int) -> None:
    """Moderates a seeded day; in the Airflow that runs, or by itself when none does."""
    with Steps() as steps:
        with environment.alone(settings):
            # The images are made and uploaded while Airflow's database is being migrated.
            variables = environment.start_services(
                settings,
                cloud_settings,
                steps,
                when_cloud_runs=lambda: seed(cloud_settings, day, images, steps),
            )
        with steps.step("Moderation") as step:
            step.result = _moderate(settings, day, variables, step)
        with steps.step("Decisions") as step:
            # Only decided: to act on them is for enforce_policy, in an Airflow where a person can be asked.
            results = decide(open_lake_catalog(cloud_settings), [day], policies(), step)
            step.result = summary(results)
    with open_lake(settings, cloud_settings) as lake:
        show(read_report(lake, day), out)
    running = "Airflow, PostgreSQL" if airflow_processes.is_running(settings) else "PostgreSQL"
    out.print(
        f"\n{running} and the local cloud go on running. Stop them with ./modlake down; the data stays."
    )


def seed(cloud_settings: CloudSettings, day: date, images: int, steps: Steps) -> None:
    """Uploads the day to the local cloud, which has to run."""
    with steps.step("Images") as step:
        result = seed_day(
            s3_client(cloud.environment(cloud_settings)),
            cloud_settings.home,
            day,
            images,
            step.advance,
        )
        step.result = f"{result.images} of {day}: {result.uploaded} uploaded, {result.skipped} there already"


def _moderate(settings: Settings, day: date, variables: dict[str, str], step: Step) -> str:
    if airflow_processes.is_running(settings):
        airflow_processes.wait_until_ready(settings, step.report)
        return run_on_server(airflow_processes.api(settings), day, step.report)
    return f"log {run_here(settings, day, variables, step.report, step.complain)}"
