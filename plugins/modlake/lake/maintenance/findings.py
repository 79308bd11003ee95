"""What a step of maintenance found and did, for a person to judge."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from modlake.exceptions import ModlakeTerminalError

SAMPLES = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """Things of one kind that are to go.

    :param scope: the table, or ``runs``
    :param total: how many of the kind there are
    :param found: how many of them are to go
    :param size_bytes: of those found; 0 for what has no size of its own
    :param oldest: of those found
    :param done: how many went; 0 in a dry run
    """

    scope: str
    kind: str
    total: int
    found: int
    size_bytes: int = 0
    oldest: datetime | None = None
    samples: list[str] = field(default_factory=list)
    done: int = 0
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"oldest": self.oldest and self.oldest.isoformat()}

    def __str__(self) -> str:
        parts = [f"{self.scope}, {self.kind}: {self.found:,} of {self.total:,}"]
        if self.size_bytes:
            parts.append(f"{self.size_bytes / 1e6:,.1f} MB")
        if self.oldest is not None:
            parts.append(f"oldest of {self.oldest:%Y-%m-%d %H:%M}")
        parts.append(f"done {self.done:,}")
        if self.samples:
            parts.append(f"such as {', '.join(self.samples)}")
        return "; ".join([", ".join(parts), *self.notes])


class MaintenanceRefusedError(ModlakeTerminalError):
    """A step would remove more than the policy allows, and removed nothing. Attribute: ``findings``."""

    def __init__(self, message: str, findings: Iterable[Finding] = ()) -> None:
        super().__init__(message)
        self.findings = list(findings)


def check_share(findings: list[Finding], max_removed_percent: float, report: Callable[[str], None]) -> None:
    """Report the findings; refuse when too large a share of any kind is to go.

    A wrong catalog or work bucket makes everything look orphaned: this is where it ends.
    """
    for finding in findings:
        report(str(finding))
    excessive = [each for each in findings if each.found > each.total * max_removed_percent / 100]
    if excessive:
        said = "; ".join(
            f"{each.found:,} of {each.total:,} {each.kind} of {each.scope}" for each in excessive
        )
        raise MaintenanceRefusedError(
            f"{said}: more than {max_removed_percent:g} % would be removed, so nothing was. Check that "
            "catalog and work bucket belong together and read the findings; if they are right, run once with "
            "a higher max_removed_percent.",
            findings,
        )
