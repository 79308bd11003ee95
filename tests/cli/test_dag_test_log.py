from __future__ import annotations

from cli.dag_test_log import DagTestLog

NOW = "2026-11-24T06:56:26.366272Z"
AIRFLOW = "[airflow.sdk.definitions.dag] loc=dag.py:1501"


def _read(*lines: str) -> tuple[DagTestLog, list[str], list[str]]:
    reports: list[str] = []
    complaints: list[str] = []
    log = DagTestLog(reports.append, complaints.append)
    for line in lines:
        log.feed(line + "\n")
    return log, reports, complaints


def test_reports_tasks_and_what_the_pipeline_says() -> None:
    _, reports, complaints = _read(
        f"{NOW} [info     ] [DAG TEST] starting task_id=plan map_index=-1 {AIRFLOW}",
        f"{NOW} [info     ] ::group::Post Execute          [task] loc=task_runner.py:1580",
        f"{NOW} [info     ] listed 60, eligible 55         [modlake.pipeline.plan] loc=plan.py:1",
        f"{NOW} [info     ] [DAG TEST] end task task_id=plan map_index=-1 {AIRFLOW}",
        f"{NOW} [info     ] [DAG TEST] starting task_id=shards.analyse map_index=1 {AIRFLOW}",
        f"{NOW} [info     ] 1 of 2 jobs done [airflow.task.operators.modlake.operators.rekognition.X] loc=x",
    )

    assert reports == ["plan", "plan: listed 60, eligible 55", "analyse[1]", "analyse[1]: 1 of 2 jobs done"]
    assert complaints == []


FAILURE = (
    f"{NOW} [info     ] [DAG TEST] starting task_id=audit map_index=-1 {AIRFLOW}",
    f"{NOW} [error    ] Task failed with exception     [task] loc=task_runner.py:1676",
    "Traceback (most recent call last):",
    '  File "audit.py", line 1, in audit_day',
    "modlake.exceptions.ModlakeTerminalError: shard 3: 9 of 10 images accounted for",
)


def test_complains_with_the_exception_of_a_failed_task() -> None:
    log, _, complaints = _read(*FAILURE, f"{NOW} [info     ] ::endgroup:: [task] loc=x")

    reason = "modlake.exceptions.ModlakeTerminalError: shard 3: 9 of 10 images accounted for"
    assert complaints == [f"audit failed: {reason}"]
    assert log.last_lines().splitlines()[0] == "audit:"
    assert log.last_lines().splitlines()[-1] == reason


def test_traceback_may_be_the_last_thing_said() -> None:
    log, _, _ = _read(*FAILURE)

    assert "9 of 10 images" in log.last_lines()


def test_without_a_failed_task_the_last_lines_are_the_end_of_the_log() -> None:
    log, _, _ = _read(*(f"line {number}" for number in range(100)))

    assert log.last_lines().splitlines() == [f"line {number}" for number in range(75, 100)]
