"""What `pip` installs for Airflow's side is all that Airflow's side imports."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "plugins" / "modlake"


class _Imports(ast.NodeVisitor):
    """Top-level names of the modules that are imported when the code runs."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def visit_If(self, node: ast.If) -> None:
        skipped = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for child in node.orelse if skipped else [*node.body, *node.orelse]:
            self.visit(child)

    def visit_Import(self, node: ast.Import) -> None:
        self.names.update(alias.name.partition(".")[0] for alias in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if not node.level and node.module:
            self.names.add(node.module.partition(".")[0])


def _imported() -> set[str]:
    imports = _Imports()
    for path in PACKAGE.rglob("*.py"):
        imports.visit(ast.parse(path.read_text(encoding="utf-8")))
    return imports.names - sys.stdlib_module_names - {"modlake"}


def _installed_by(requirements: list[str]) -> set[str]:
    """Canonical names of the distributions that these requirements bring along in this Python."""
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras}:
            if (name, extra) not in seen:
                seen.add((name, extra))
                waiting.extend(_required_by(name, extra))
    return {name for name, _ in seen}


def _required_by(name: str, extra: str) -> Iterator[Requirement]:
    try:
        texts = metadata.requires(name) or []
    except metadata.PackageNotFoundError:  # for another platform
        return
    for requirement in map(Requirement, texts):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


def test_everything_that_airflows_side_imports_is_installed_by_its_dependencies() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    installed = _installed_by(project["dependencies"])
    providers = metadata.packages_distributions()
    imported = _imported()

    assert {"airflow", "pyarrow"} <= imported
    assert not {
        module
        for module in imported
        if not any(canonicalize_name(name) in installed for name in providers.get(module, []))
    }
