"""The keys and the login of one state directory: made once, kept as long as its database."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography.fernet import Fernet

from cli.settings import Settings

ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Credentials:
    fernet_key: str
    jwt_secret: str
    api_secret_key: str
    admin_password: str

    @classmethod
    def of(cls, settings: Settings) -> Credentials:
        """Reads the credentials of the state directory, or makes them."""
        path = settings.airflow_home / "secrets.json"
        if path.exists():
            return cls(**json.loads(path.read_text()))
        made = cls(
            fernet_key=Fernet.generate_key().decode(),
            jwt_secret=secrets.token_urlsafe(64),
            api_secret_key=secrets.token_urlsafe(32),
            admin_password=secrets.token_urlsafe(12),
        )
        settings.airflow_home.mkdir(parents=True, exist_ok=True)
        _write_privately(passwords_file(settings), json.dumps({ADMIN: made.admin_password}))
        _write_privately(path, json.dumps(asdict(made)))
        return made


def passwords_file(settings: Settings) -> Path:
    """The file of Airflow's SimpleAuthManager."""
    return settings.airflow_home / "passwords.json"


def _write_privately(path: Path, text: str) -> None:
    unfinished = path.with_suffix(".unfinished")
    unfinished.touch(mode=0o600)
    unfinished.write_text(text)
    unfinished.replace(path)
