"""How the stand-in behaves: speed, quotas, and what is unknown of the real service."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from localcloud.errors import LocalCloudError

FILE_NAME = "rekognition.toml"
_PREFIX = "MODLAKE_REKOGNITION_"
_CHOICES = {
    "failed_image_line": ("absent", "without-answer"),
    "line_number_key": ("line-numer", "line-number"),
}
_TEMPLATE = """\
# How the Rekognition stand-in behaves. Read when it starts: ./modlake cloud stop && ./modlake cloud start
# A variable of the environment wins: MODLAKE_REKOGNITION_JOB_SECONDS=30 for job_seconds.

# job_seconds = 0.0             # a job takes at least this long
# running_jobs = 4              # jobs in progress at once; the others stay QUEUED
# image_workers = 4             # images read and judged at once

# Quotas of the account (the defaults are AWS's in us-east-1)
# concurrent_jobs = 20
# start_per_second = 5
# get_per_second = 20
# list_per_second = 5
# detect_per_second = 50

# Not documented by AWS, so both can be rehearsed
# failed_image_line = "absent"       # or "without-answer": a failed image leaves a line with its source-ref
# line_number_key = "line-numer"     # as documented, or "line-number"

# kms_keys = []                 # key ids that may be named as KmsKeyId; any other fails the job
"""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """The settings of the stand-in; `rekognition.toml` in the cloud's directory describes each."""

    job_seconds: float = 0.0
    running_jobs: int = 4
    image_workers: int = 4
    concurrent_jobs: int = 20
    start_per_second: int = 5
    get_per_second: int = 20
    list_per_second: int = 5
    detect_per_second: int = 50
    failed_image_line: str = "absent"
    line_number_key: str = "line-numer"
    kms_keys: tuple[str, ...] = ()


def write_template(cloud_dir: Path) -> None:
    """Put the commented settings file there, unless there is one."""
    path = cloud_dir / FILE_NAME
    if not path.exists():
        path.write_text(_TEMPLATE, encoding="utf-8")


def load(cloud_dir: Path, env: Mapping[str, str] = os.environ) -> Behaviour:
    """Read `rekognition.toml`, then MODLAKE_REKOGNITION_<NAME> over it.

    Raises LocalCloudError for a name or a value that is not one of the settings.
    """
    path = cloud_dir / FILE_NAME
    try:
        raw: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LocalCloudError(f"{path} is not valid TOML ({error}): repair or delete it") from error
    names = {field.name for field in fields(Behaviour)}
    for name in raw.keys() - names:
        raise LocalCloudError(
            f"{path} has an unknown setting {name!r}: use one of {', '.join(sorted(names))}"
        )
    for name in names:
        if text := env.get(_PREFIX + name.upper()):
            raw[name] = text.split(",") if name == "kms_keys" else text
    return Behaviour(**{name: _converted(name, value) for name, value in raw.items()})


def _converted(name: str, value: Any) -> Any:
    kind = type(getattr(Behaviour(), name))
    try:
        converted = kind(value)
    except (TypeError, ValueError):
        raise LocalCloudError(f"the setting {name} is {value!r}: give it a {kind.__name__}") from None
    if name in _CHOICES and converted not in _CHOICES[name]:
        raise LocalCloudError(f"the setting {name} is {value!r}: use {' or '.join(_CHOICES[name])}")
    if kind is int and converted < 1:
        raise LocalCloudError(f"the setting {name} is {value!r}: use 1 or more")
    return converted
