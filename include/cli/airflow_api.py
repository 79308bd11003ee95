"""Airflow's REST API, as the admin of this checkout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from cli.credentials import ADMIN
from modlake.exceptions import ModlakeTerminalError


@dataclass(frozen=True, slots=True)
class ComponentHealth:
    healthy: bool
    heartbeat: str | None  # ISO 8601; the metadata database has none


class AirflowApi:
    """A client of one API server; every failure is a ModlakeTerminalError that says what Airflow answered."""

    def __init__(self, url: str, password: str) -> None:
        self.url = url
        self._password = password
        # A proxy of the environment has no business between this machine and itself.
        self._client = httpx.Client(base_url=url, trust_env=False, timeout=30)
        self._token: str | None = None

    def health(self) -> dict[str, ComponentHealth] | None:
        """The health of each component by name, or None while the API server does not answer."""
        try:
            answer = self._client.get("/api/v2/monitor/health")
            answer.raise_for_status()
        except httpx.HTTPError:
            return None
        return {
            name: ComponentHealth(part["status"] == "healthy", part.get(f"latest_{name}_heartbeat"))
            for name, part in answer.json().items()
            if part
        }

    def get(self, path: str, **parameters: str | int | list[str]) -> Any:
        return self._call("GET", path, params=parameters)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return self._call("POST", path, json=body)

    def find(self, path: str) -> Any | None:
        """Like `get`, but None when there is no such thing."""
        answer = self._send("GET", path)
        return None if answer.status_code == httpx.codes.NOT_FOUND else self._read(answer)

    def _call(self, method: str, path: str, **content: Any) -> Any:
        return self._read(self._send(method, path, **content))

    def _send(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            answer = self._client.request(method, f"/api/v2/{path}", headers=self._login(), **content)
            if answer.status_code == httpx.codes.UNAUTHORIZED:  # tokens end, a backfill may outlast one
                self._token = None
                answer = self._client.request(method, f"/api/v2/{path}", headers=self._login(), **content)
        except httpx.HTTPError as error:
            raise ModlakeTerminalError(
                f"Airflow at {self.url} does not answer ({error}). Start it with ./modlake up."
            ) from error
        return answer

    def _login(self) -> dict[str, str]:
        if self._token is None:
            login = {"username": ADMIN, "password": self._password}
            self._token = self._read(self._client.post("/auth/token", json=login))["access_token"]
        return {"Authorization": f"Bearer {self._token}"}

    def _read(self, answer: httpx.Response) -> Any:
        if answer.is_success:
            return answer.json()
        try:
            detail = answer.json()["detail"]
        except (ValueError, KeyError, TypeError):
            detail = answer.text.strip() or answer.reason_phrase
        raise AirflowRefusedError(
            answer.status_code,
            f"Airflow answered {answer.status_code}: {str(detail).rstrip('.')}. Correct what was asked for; "
            "of a fault of the server's own its log tells, which ./modlake status names.",
        )


class AirflowRefusedError(ModlakeTerminalError):
    """Airflow understood the call and declined it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
