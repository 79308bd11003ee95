"""The plan of misbehaviour, `<home>/cloud/faults.json`: what goes wrong, and when."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from localcloud.errors import LocalCloudError

FILE_NAME = "faults.json"

Service = Literal["rekognition", "s3"]
Cut = Literal["request", "reply", "body"]
Results = Literal[
    "missing",
    "doubled",
    "contradicting",
    "truncated",
    "foreign",
    "unanswered",
    "unknown-keys",
    "unknown-labels",
    "nan",
    "crlf",
    "bom",
    "other-model",
    "adapter-expired",
]
Summary = Literal["line-number", "line-numer", "without-source-ref", "absent"]
FAILURE_CODES = (
    "INTERNAL_ERROR",
    "INVALID_S3_OBJECT",
    "INVALID_MANIFEST",
    "INVALID_OUTPUT_CONFIG",
    "INVALID_KMS_KEY",
    "ACCESS_DENIED",
    "RESOURCE_NOT_FOUND",
    "RESOURCE_NOT_READY",
    "THROTTLED",
)
"""FailureDetails.Code of the service model."""


@dataclass(frozen=True, slots=True)
class When:
    """Which of the events that a rule sees are hit; without a choice all of them.

    :param nth: those with these numbers, counted from 1 since the plan was written
    :param every: each k-th
    :param probability: each with this chance, decided by the plan's seed and the event's number alone
    :param times: no more than so many
    """

    nth: tuple[int, ...] = ()
    every: int | None = None
    probability: float | None = None
    times: int | None = None

    def is_due(self, number: int, hits: int, salt: str) -> bool:
        if self.times is not None and hits >= self.times:
            return False
        choices = []
        if self.nth:
            choices.append(number in self.nth)
        if self.every is not None:
            choices.append(number % self.every == 0)
        if self.probability is not None:
            chance = random.Random(f"{salt}:{number}").random()  # noqa: S311  to be repeated, not secret
            choices.append(chance < self.probability)
        return any(choices) if choices else True


@dataclass(frozen=True, slots=True)
class CallFault:
    """What befalls calls of an operation; `*` is any.

    :param match: regular expression that the object, as `bucket/key`, must contain (S3 only)
    :param error: answered instead of the call taking effect, with HTTP `status`
    :param cut: the connection ends before the `request` takes effect, before the `reply`, or in its `body`
    :param delay_seconds: held for so long, before the call takes effect, or `after_effect`; a caller that
        goes away in the meantime was never heard, or never hears
    :param detached: a held call takes effect also when its caller has gone away: it was on its way
    """

    operation: str
    service: Service = "rekognition"
    match: str = ""
    when: When = When()
    error: str | None = None
    status: int | None = None
    message: str = "rehearsed"
    cut: Cut | None = None
    delay_seconds: float | None = None
    after_effect: bool = False
    detached: bool = False

    @property
    def kind(self) -> str:
        """What reports count it as."""
        if self.error is not None:
            return f"{self.service} error {self.error}"
        if self.cut is not None:
            return f"{self.service} {self.cut} lost"
        return f"{self.service} delay"

    def concerns(self, service: Service, operation: str, subject: str) -> bool:
        return (
            self.service == service
            and self.operation in ("*", operation)
            and re.search(self.match, subject) is not None
        )


@dataclass(frozen=True, slots=True)
class JobFault:
    """What befalls media analysis jobs; several rules may befall one.

    :param fail: FAILED with this FailureDetails.Code, before an image is judged or billed
    :param seconds: takes at least so long
    :param stuck: stays IN_PROGRESS until the plan changes
    :param results: what is wrong with results.jsonl, in `lines` of its lines
    :param summary: how manifest-summary.json is written
    """

    when: When = When()
    fail: str | None = None
    message: str = "rehearsed"
    seconds: float | None = None
    stuck: bool = False
    results: Results | None = None
    lines: int = 1
    summary: Summary | None = None

    @property
    def kind(self) -> str:
        if self.fail is not None:
            return f"job {self.fail}"
        if self.results is not None:
            return f"results {self.results}"
        if self.summary is not None:
            return f"summary {self.summary}"
        return "job stuck" if self.stuck else "job slow"


@dataclass(frozen=True, slots=True)
class TokenMemory:
    """What a ClientRequestToken answers in cases that AWS leaves open.

    :param after_failed: of a job that FAILED: that `old` job, or a `new` one
    :param lifetime_seconds: after which a token is as good as never used; None is for ever
    """

    after_failed: Literal["old", "new"] = "old"
    lifetime_seconds: float | None = None


TOKENS_KEPT = TokenMemory()


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """All rules. A plan that is written again counts its events anew."""

    seed: int = 0
    calls: tuple[CallFault, ...] = ()
    jobs: tuple[JobFault, ...] = ()
    tokens: TokenMemory = TOKENS_KEPT


def parse(text: str, origin: str) -> FaultPlan:
    """Read a plan.

    Raises LocalCloudError naming the part that is no rule.
    """
    try:
        raw = json.loads(text)
        _known(raw, FaultPlan, "the plan")
        return FaultPlan(
            seed=int(raw.get("seed", 0)),
            calls=tuple(_call_fault(rule) for rule in raw.get("calls", ())),
            jobs=tuple(_job_fault(rule) for rule in raw.get("jobs", ())),
            tokens=TokenMemory(**_known(raw.get("tokens", {}), TokenMemory, "tokens")),
        )
    except (AttributeError, KeyError, TypeError, ValueError, re.error) as error:
        raise LocalCloudError(f"{origin} is no plan of faults ({error}): see docs/local-cloud.md") from error


def write(cloud_dir: Path, plan: Mapping[str, Any] | None) -> None:
    """Put a plan in force, at once and in all servers of the cloud; None ends all misbehaviour.

    Raises LocalCloudError for what is no plan.
    """
    path = cloud_dir / FILE_NAME
    if plan is None:
        path.unlink(missing_ok=True)
        return
    text = json.dumps(plan, indent=1)
    parse(text, str(path))
    draft = path.with_suffix(".tmp")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


_WHEN = tuple(choice.name for choice in fields(When))


def _when(rule: dict[str, Any]) -> When:
    chosen = {name: rule.pop(name) for name in _WHEN if name in rule}
    return When(**chosen | {"nth": tuple(chosen.get("nth", ()))})


def _call_fault(raw: Mapping[str, Any]) -> CallFault:
    rule = dict(raw)
    fault = CallFault(when=_when(rule), **_known(rule, CallFault, "a rule of calls"))
    actions = [fault.error is not None, fault.cut is not None, fault.delay_seconds is not None]
    if sum(actions) != 1:
        raise ValueError(f"{dict(raw)} must have one of error, cut and delay_seconds")
    _one_of(fault.service, Service)
    _one_of(fault.cut, Cut)
    re.compile(fault.match)
    return fault


def _job_fault(raw: Mapping[str, Any]) -> JobFault:
    rule = dict(raw)
    fault = JobFault(when=_when(rule), **_known(rule, JobFault, "a rule of jobs"))
    actions = [fault.fail, fault.seconds, fault.stuck or None, fault.results, fault.summary]
    if sum(action is not None for action in actions) != 1:
        raise ValueError(f"{dict(raw)} must have one of fail, seconds, stuck, results and summary")
    if fault.fail is not None and fault.fail not in FAILURE_CODES:
        raise ValueError(f"{fault.fail} is none of {', '.join(FAILURE_CODES)}")
    _one_of(fault.results, Results)
    _one_of(fault.summary, Summary)
    return fault


def _known(given: Mapping[str, Any], kind: type, where: str) -> dict[str, Any]:
    names = {each.name for each in fields(kind)} - {"when"}
    for name in given.keys() - names:
        raise ValueError(f"{where} has the unknown key {name!r}, known are {', '.join(sorted(names))}")
    return dict(given)


def _one_of(value: str | None, choices: Any) -> None:
    if value is not None and value not in get_args(choices):
        raise ValueError(f"{value!r} is none of {', '.join(get_args(choices))}")
