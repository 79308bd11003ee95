"""The plan in force, asked by the servers at every call and every job."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from localcloud.errors import LocalCloudError
from localcloud.faults import plan as plans
from localcloud.faults.ledger import FaultLedger
from localcloud.faults.plan import CallFault, FaultPlan, JobFault, Service, TokenMemory

log = logging.getLogger(__name__)
_NOTHING = FaultPlan()


class FaultSource:
    """Reads `faults.json` again whenever it changes, and counts in `faults.sqlite`."""

    def __init__(self, cloud_dir: Path) -> None:
        self._path = cloud_dir / plans.FILE_NAME
        self._ledger = FaultLedger(cloud_dir)
        self._lock = threading.Lock()
        self._stamp = ""
        self._plan = _NOTHING

    def tokens(self) -> TokenMemory:
        return self._in_force()[1].tokens

    def befalls_calls_of(self, service: Service) -> bool:
        """Whether any rule concerns the service; costs a look at the file's time."""
        return any(rule.service == service for rule in self._in_force()[1].calls)

    def call_fault(self, service: Service, operation: str, subject: str) -> CallFault | None:
        """What befalls this call: the first rule that is due. Every rule counts the calls it concerns."""
        stamp, plan = self._in_force()
        due = [
            rule
            for number, rule in enumerate(plan.calls)
            if rule.concerns(service, operation, subject)
            and self._is_due(stamp, f"call {number}", rule.when, plan.seed)
        ]
        return due[0] if due else None

    def job_faults(self, job_id: str) -> list[JobFault]:
        """What befalls this job; decided once, also when the plan changes or the server is restarted.

        A plan that is no longer in force has no hold over what is left of its jobs.
        """
        stamp, plan = self._in_force()
        decided = self._ledger.decided(job_id)
        if decided is None:
            numbers = [
                number
                for number, rule in enumerate(plan.jobs)
                if self._is_due(stamp, f"job {number}", rule.when, plan.seed)
            ]
            self._ledger.decide(job_id, stamp, numbers)
            decided = (stamp, numbers)
        return [plan.jobs[number] for number in decided[1]] if decided[0] == stamp else []

    def record(self, kind: str, subject: str) -> None:
        self._ledger.record(kind, subject)

    def close(self) -> None:
        self._ledger.close()

    def _is_due(self, stamp: str, rule: str, when: plans.When, seed: int) -> bool:
        return self._ledger.take(
            stamp, rule, lambda number, hits: when.is_due(number, hits, f"{seed}:{rule}")
        )

    def _in_force(self) -> tuple[str, FaultPlan]:
        with self._lock:
            try:
                status = self._path.stat()
            except FileNotFoundError:
                self._stamp, self._plan = "", _NOTHING
                return self._stamp, self._plan
            # Written anew, even with the same content, it is another plan.
            stamp = f"{status.st_mtime_ns}-{status.st_ino}-{status.st_size}"
            if stamp != self._stamp:
                self._read(stamp)
            return self._stamp, self._plan

    def _read(self, stamp: str) -> None:
        self._stamp = stamp
        try:
            self._plan = plans.parse(self._path.read_text(encoding="utf-8"), str(self._path))
        except (OSError, LocalCloudError) as error:
            log.warning("%s; what was in force stays so", error)
