"""The native backfill, against a server that answers as Airflow's REST API does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from cli import airflow_processes, backfill, watch_backfill
from cli.airflow_api import AirflowApi
from cli.backfill import Backfill, DayState
from cli.settings import Settings
from modlake.exceptions import ModlakeTerminalError

CREATED_AT = "2026-11-24T07:00:00Z"


class FakeAirflow:
    """Answers by method and path; a list of answers is given out one a call, the last one for ever."""

    def __init__(self) -> None:
        self.answers: dict[str, list[tuple[int, Any]]] = {"POST /auth/token": [(201, {"access_token": "t"})]}
        self.calls: list[tuple[str, dict[str, list[str]], Any]] = []
        self.url = ""

    def on(self, call: str, *answers: tuple[int, Any]) -> None:
        self.answers[call] = list(answers)

    def answer(self, method: str, target: str, body: Any) -> tuple[int, Any]:
        parts = urlsplit(target)
        call = f"{method} {parts.path}"
        self.calls.append((call, parse_qs(parts.query), body))
        if call not in self.answers:
            return 404, {"detail": f"{call} not found"}
        answers = self.answers[call]
        return answers.pop(0) if len(answers) > 1 else answers[0]


@pytest.fixture
def airflow() -> Iterator[FakeAirflow]:
    fake = FakeAirflow()

    class Handler(BaseHTTPRequestHandler):
        def _respond(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            status, content = fake.answer(self.command, self.path, body)
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = _respond  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        fake.url = f"http://127.0.0.1:{server.server_port}"
        yield fake
        server.shutdown()
        thread.join()


@pytest.fixture
def api(airflow: FakeAirflow) -> AirflowApi:
    return AirflowApi(airflow.url, "secret")


def _run(day: str, state: str, queued_at: str = "2026-11-24T07:00:01Z") -> dict[str, Any]:
    return {
        "dag_run_id": f"backfill__{day}T00:00:00+00:00__{day}__x",
        "partition_key": day,
        "state": state,
        "queued_at": queued_at,
        "start_date": queued_at,
        "duration": 61.5 if state in ("success", "failed") else None,
    }


def _task(task_id: str, state: str = "running", **rendered_fields: Any) -> dict[str, Any]:
    return {"task_id": task_id, "state": state, "rendered_fields": rendered_fields}


def _create(api: AirflowApi, first: date = date(2026, 11, 20), last: date = date(2026, 11, 22)) -> Backfill:
    return backfill.create(api, first, last, reprocess="failed", max_active_runs=2)


def test_bounds_hold_both_days_whole(airflow: FakeAirflow, api: AirflowApi) -> None:
    airflow.on("POST /api/v2/backfills", (200, {"id": 7, "created_at": CREATED_AT}))

    created = _create(api)

    assert created == Backfill(
        7, ["2026-11-20", "2026-11-21", "2026-11-22"], datetime(2026, 11, 24, 7, tzinfo=UTC)
    )
    (login, asked) = airflow.calls
    assert login[2] == {"username": "admin", "password": "secret"}
    assert asked[2] == {
        "dag_id": "moderate_images",
        "from_date": "2026-11-20T00:00:00Z",
        "to_date": "2026-11-22T23:59:59Z",
        "reprocess_behavior": "failed",
        "max_active_runs": 2,
    }


def test_one_day_is_a_range(airflow: FakeAirflow, api: AirflowApi) -> None:
    airflow.on("POST /api/v2/backfills", (200, {"id": 7, "created_at": CREATED_AT}))

    assert _create(api, date(2026, 2, 28), date(2026, 2, 28)).days == ["2026-02-28"]


def test_reversed_range_is_refused_before_airflow_is_asked(airflow: FakeAirflow, api: AirflowApi) -> None:
    with pytest.raises(ModlakeTerminalError, match="earlier day first"):
        _create(api, date(2026, 11, 22), date(2026, 11, 20))

    assert airflow.calls == []


def test_second_backfill_at_a_time_is_explained(airflow: FakeAirflow, api: AirflowApi) -> None:
    airflow.on("POST /api/v2/backfills", (409, {"detail": "There is already a running backfill"}))

    with pytest.raises(ModlakeTerminalError, match="one at a time: wait until it has ended"):
        _create(api)


def test_other_refusals_are_airflows_words(airflow: FakeAirflow, api: AirflowApi) -> None:
    airflow.on("POST /api/v2/backfills", (422, {"detail": "from_date must not be in the future"}))

    with pytest.raises(ModlakeTerminalError, match=r"422: from_date must not be in the future\. Correct"):
        _create(api)


def test_airflow_that_does_not_answer_says_how_to_start_it() -> None:
    with pytest.raises(ModlakeTerminalError, match=r"\./modlake up"):
        _create(AirflowApi("http://127.0.0.1:1", "secret"))


def test_expired_token_is_renewed(airflow: FakeAirflow, api: AirflowApi) -> None:
    airflow.on(
        "POST /api/v2/backfills", (401, {"detail": "expired"}), (200, {"id": 1, "created_at": CREATED_AT})
    )

    assert _create(api).id == 1
    assert [call for call, _, _ in airflow.calls].count("POST /auth/token") == 2


def test_watch_ends_when_airflow_calls_it_complete(
    airflow: FakeAirflow, api: AirflowApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill, "POLL_SECONDS", 0)
    asked = Backfill(7, ["2026-11-20", "2026-11-21"], datetime(2026, 11, 24, 7, tzinfo=UTC))
    airflow.on("GET /api/v2/backfills/7", (200, {"completed_at": None}), (200, {"completed_at": CREATED_AT}))
    begun, ended = (
        {"dag_runs": [_run("2026-11-20", states[0]), _run("2026-11-21", states[1])], "total_entries": 2}
        for states in (("success", "running"), ("success", "failed"))
    )
    airflow.on("GET /api/v2/dags/moderate_images/dagRuns", (200, begun), (200, ended))
    tasks = "/api/v2/dags/moderate_images/dagRuns/backfill__2026-11-21T00%3A00%3A00%2B00%3A00__2026-11-21__x"
    airflow.on(f"GET {tasks}/taskInstances", (200, {"task_instances": [_task("shards.analyse")]}))
    reports: list[list[DayState]] = []

    states = backfill.watch(api, asked, reports.append)

    assert [(state.day, state.state) for state in states] == [
        ("2026-11-20", "success"),
        ("2026-11-21", "failed"),
    ]
    assert [state.task for state in reports[0]] == ["", "analyse"]
    assert len(reports) == 2
    (window, *_) = [query for call, query, _ in airflow.calls if call.endswith("/dagRuns")]
    assert window["partition_date_gte"] == ["2026-11-20"]
    assert window["partition_date_lte"] == ["2026-11-21"]


def test_day_that_waits_for_its_marker_says_so_once(
    airflow: FakeAirflow, api: AirflowApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(backfill, "POLL_SECONDS", 0)
    monkeypatch.setattr(airflow_processes, "is_running", lambda _: True)
    monkeypatch.setattr(airflow_processes, "api", lambda _: api)
    airflow.on("POST /api/v2/backfills", (200, {"id": 7, "created_at": CREATED_AT}))
    going_on = (200, {"completed_at": None})
    airflow.on("GET /api/v2/backfills/7", going_on, going_on, going_on, (200, {"completed_at": CREATED_AT}))
    waiting, ended = (
        (200, {"dag_runs": [_run("2026-11-27", state)], "total_entries": 1})
        for state in ("running", "success")
    )
    airflow.on("GET /api/v2/dags/moderate_images/dagRuns", waiting, waiting, waiting, ended)
    run = "/api/v2/dags/moderate_images/dagRuns/backfill__2026-11-27T00%3A00%3A00%2B00%3A00__2026-11-27__x"
    looks, waits = (
        (200, {"task_instances": [_task("wait_for_day", state, marker_uri="s3://ugc/complete/%Y-%m-%d")]})
        for state in ("running", "deferred")
    )
    airflow.on(f"GET {run}/taskInstances", looks, waits, waits)
    day = date(2026, 11, 27)

    assert watch_backfill.run(Settings.from_environment({}), day, day, reprocess="none", max_active_runs=1)

    told = capsys.readouterr().err
    assert told.count("2026-11-27  waits for its marker s3://ugc/complete/2026-11-27\n") == 1


def test_day_is_as_its_newest_run() -> None:
    asked = Backfill(7, ["2026-11-20", "2026-11-21", "2026-11-22"], datetime(2026, 11, 24, 7, tzinfo=UTC))

    states = backfill.day_states(
        asked,
        [
            _run("2026-11-20", "failed", queued_at="2026-11-23T00:00:00Z"),
            _run("2026-11-21", "success", queued_at="2026-11-23T00:00:00Z"),
            _run("2026-11-20", "success"),
        ],
    )

    assert [(state.state, state.is_earlier) for state in states] == [
        ("success", False),
        ("success", True),
        ("no run", False),
    ]
