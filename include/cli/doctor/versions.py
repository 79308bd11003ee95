"""Whether the libraries of this Python work with one another."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from cli.doctor.findings import Finding, failed, ok
from cli.doctor.installation import Installation

REQUIRED = {
    "apache-airflow": ">=3.3.2,<3.4",
    "apache-airflow-providers-amazon": ">=9.34",
    "pyiceberg": ">=0.12",
    "sqlalchemy": "<2.1",  # Airflow 3.3.2's API server breaks on 2.1
}
PYTHON = ">=3.11,<3.14"


def check(_: Installation) -> Iterator[Finding]:
    """Python, the packages named above, and the botocore that aiobotocore was made for."""
    yield _compared("Python", platform.python_version(), PYTHON, "run Modlake with a Python that is")
    for package, wanted in REQUIRED.items():
        yield _package(package, wanted)
    yield from _boto()


def _package(package: str, wanted: str) -> Finding:
    installed = _installed(package)
    if installed is None:
        return failed(
            f"version of {package}", "not installed", f"install {package}{wanted} (requirements.txt)"
        )
    return _compared(package, installed, wanted, f"install {package}")


def _boto() -> Iterator[Finding]:
    """aiobotocore replaces parts of botocore, so it works with the few versions it names."""
    if _installed("aiobotocore") is None:
        mend = (
            "install apache-airflow-providers-amazon[aiobotocore]: triggers and the synchronous engine use it"
        )
        yield failed("version of aiobotocore", "not installed", mend)
        return
    for text in metadata.requires("aiobotocore") or []:
        needed = Requirement(text)
        installed = _installed(needed.name)
        if needed.name in {"botocore", "boto3"} and installed is not None:
            mend = f"let aiobotocore {metadata.version('aiobotocore')} decide: install {needed.name}"
            yield _compared(needed.name, installed, str(needed.specifier), mend)


def _compared(name: str, installed: str, wanted: str, mend: str) -> Finding:
    if SpecifierSet(wanted).contains(installed, prereleases=True):
        return ok(f"version of {name}", f"{installed} (wanted: {wanted})")
    return failed(f"version of {name}", f"{installed} (wanted: {wanted})", f"{mend} {wanted}")


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
