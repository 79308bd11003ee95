"""What is to be done about images: the difference between what policies decide and what was done before."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.columns import Column
from modlake.pipeline.outcomes import ANSWERED, Outcome
from modlake.policy.intents import (
    MODLAKE,
    REQUESTED,
    UNDONE,
    Intent,
    action_id,
    may_be_in_effect,
    may_be_requested_anew,
    undo_of,
)
from modlake.policy.object_etags import etags_of_object
from modlake.policy.policy import Policy, Verdict

# What a target is called in the settings, by kind of action.
TARGET_NAMES = {
    "tag": "key",
    "quarantine": "uri",
    "review_queue": "uri",
    "notify_sns": "topic_arn",
    "notify_sqs": "queue_url",
    "notify_webhook": "conn_id",
}


_NEVER = datetime.min.replace(tzinfo=UTC)


class ActionHistory:
    """The actions of a day so far, by image; made of rows of ``actions``.

    :param published_at: when the day was last published: its images were where they are listed since
    """

    def __init__(self, actions: pa.Table, published_at: datetime) -> None:
        self._published_at = published_at
        self._by_image: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in actions.sort_by("requested_at").to_pylist():
            self._by_image[row["source_ref"]].append(row)

    @property
    def source_refs(self) -> Column:
        """The images that something was done about, or asked for."""
        return pa.array(self._by_image, pa.string())

    @property
    def requested_by(self) -> list[str]:
        """The enforcements that have requested what nobody has ended."""
        return list(dict.fromkeys(row["enforcement_id"] for row in self._left if row["status"] == REQUESTED))

    def tried_elsewhere(self, enforcement_id: str | None) -> list[str]:
        """Return what may be tried anew, and what another enforcement has requested and not ended.

        Either is by then another enforcement's to carry out: the results of this one may be older.
        """
        return sorted(
            f"{row['action_id']} {row['status']} {row['enforcement_id']}"
            for row in self._left
            if row["status"] != REQUESTED or row["enforcement_id"] != enforcement_id
        )

    @cached_property
    def _left(self) -> list[dict[str, Any]]:
        rows = (row for rows in self._by_image.values() for row in rows)
        return [row for row in rows if row["status"] == REQUESTED or may_be_requested_anew(row)]

    def of(self, source_ref: str, etag: str) -> _ImageHistory:
        of_name = self._by_image.get(source_ref, [])
        etags = etags_of_object(etag, of_name)
        rows = [row for row in of_name if row["etag"] in etags]
        return _ImageHistory(
            etags[-1],
            self._published_at,
            [row for row in rows if row["undoes"] is None],
            {row["undoes"]: row for row in rows if row["undoes"] is not None},
        )


@dataclass(frozen=True, slots=True)
class _ImageHistory:
    """What was done about an image as it is now; ``undos`` by the action that they take back.

    ``etag`` is the one that it has now, as far as actions tell; the day may have been listed before.
    """

    etag: str
    published_at: datetime
    actions: list[dict[str, Any]]
    undos: dict[str, dict[str, Any]]

    @property
    def open(self) -> list[dict[str, Any]]:
        """The actions that may be in effect."""
        return [row for row in self.actions if may_be_in_effect(row)]

    def named(self, kind: str, target: str) -> list[dict[str, Any]]:
        return [row for row in self.actions if (row["kind"], row["target"]) == (kind, target)]

    def others(self, kind: str, target: str) -> list[dict[str, Any]]:
        """Return the actions of a kind that may be in effect, with another target."""
        return [row for row in self.open if row["kind"] == kind and row["target"] != target]

    def undo_status(self, row: Mapping[str, Any]) -> str | None:
        undo = self.undos.get(row["action_id"])
        return undo["status"] if undo else None

    def sought_in_vain(self, row: Mapping[str, Any], superseded: list[dict[str, Any]]) -> bool:
        """Tell whether an action or undo did not find the image, and may find it now.

        It has another ETag, or came back since, or does so now.

        :param superseded: the actions that are about to be taken back
        """
        return row["status"] in ("replaced", "gone") and (
            row["etag"] != self.etag or row["completed_at"] < self._came_back(superseded)
        )

    def _came_back(self, superseded: list[dict[str, Any]]) -> datetime:
        quarantines = [row for row in self.actions if row["kind"] == "quarantine"]
        if any(row in superseded for row in quarantines):
            return datetime.max.replace(tzinfo=UTC)
        undone = {row["action_id"] for row in quarantines if row["status"] == UNDONE}
        times = [undo["completed_at"] for undoes, undo in self.undos.items() if undoes in undone]
        # An image in quarantine is one of its day without being where it was.
        if not any(may_be_in_effect(row) for row in quarantines):
            times.append(self.published_at)
        return max(times, default=_NEVER)

    def undone_in_vain(self, superseded: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the actions whose undo did not find the image, and may find it now."""
        return [
            row
            for row in self.open
            if row["kind"] != "quarantine"
            and row["action_id"] in self.undos
            and self.sought_in_vain(self.undos[row["action_id"]], superseded)
        ]

    def answer_stands(self, severity: int) -> bool:
        """Tell whether a verdict of this severity, for lack of an answer, leaves what rests on an answer.

        A milder or equal one does, and any while the image may lie in quarantine: it can't be read there.
        """
        return any(_severity([row]) >= severity for row in self.answered_and_kept) or any(
            row["kind"] == "quarantine" and _is_answered(row) for row in self.open
        )

    @property
    def unfinished_of_answer(self) -> list[dict[str, Any]]:
        """The actions that the answer asked for which stands, and that failed or nobody knows the end of."""
        verdicts = {row["verdict"] for row in self.answered_and_kept}
        return [
            row
            for row in self.actions
            if row["status"] in (REQUESTED, "failed")
            and row["verdict"] in verdicts
            and _is_answered(row)
            and self.undo_status(row) != REQUESTED
        ]

    @property
    def answered_and_kept(self) -> list[dict[str, Any]]:
        """The actions that may be in effect, rest on an answer, and that nobody has begun to take back."""
        return [row for row in self.open if _is_answered(row) and self.undo_status(row) != REQUESTED]

    @property
    def undone_by_people(self) -> set[str]:
        """The kinds that a person has taken back, or is about to."""
        return {
            undo["kind"]
            for undo in self.undos.values()
            if undo["actor"] != MODLAKE and undo["status"] != "failed"
        }


def _is_answered(row: Mapping[str, Any]) -> bool:
    return "outcome" not in json.loads(row["detail"])


def _severity(rows: Iterable[Mapping[str, Any]]) -> int:
    """Return that of the most severe verdict."""
    return max((Verdict(row["verdict"]).severity for row in rows), default=0)


class Targets:
    """Where actions go, by kind; as in the Airflow variable ``modlake_action_targets``."""

    def __init__(self, settings: Mapping[str, Mapping[str, str]]) -> None:
        self._settings = settings

    def check(self, policies: Iterable[Policy]) -> None:
        """Raise ModlakeTerminalError when a live policy names a kind that has no target."""
        for policy in policies:
            if policy.status == "live":
                named = {kind for kinds in policy.actions.values() for kind in kinds}
                for kind in sorted(named | {kind for rule in policy.rules for kind in rule.actions or ()}):
                    self._check(policy, kind)

    def _check(self, policy: Policy, kind: str) -> None:
        name = TARGET_NAMES.get(kind)
        if name is None:
            raise ModlakeTerminalError(
                f"The policy {policy.name} names the action {kind!r}, which there is not: "
                f"choose among {', '.join(TARGET_NAMES)}."
            )
        if not self._settings.get(kind, {}).get(name):
            raise ModlakeTerminalError(
                f"The policy {policy.name} names the action {kind!r}, which has no target: set "
                f'{{"{kind}": {{"{name}": …}}}} in the Airflow variable modlake_action_targets.'
            )

    def of(self, kind: str, verdict: str) -> str:
        target = self._settings[kind][TARGET_NAMES[kind]]
        # A tag tells the verdict: another verdict is another action.
        return f"{target}={verdict}" if kind == "tag" else target


def plan_intents(
    decisions: pa.Table,
    history: ActionHistory,
    policies: Sequence[Policy],
    targets: Targets,
    *,
    day: str,
    enforcement_id: str,
) -> Iterator[Intent]:
    """Yield what is left to be done and to be taken back, image by image.

    Of several live policies those with the most severe verdict have their actions done. What was done before
    and is not asked for any more is taken back. What a person has taken back is not done again, as long as
    the image is the same. For lack of an answer nothing is released that rests on one, and what that one
    asked for goes on: an image that lies in quarantine can't be read, and isn't allowed thereby.

    :param decisions: rows of ``decisions`` and the images' ``etag`` and ``outcome``; an image that isn't
        among them is let be
    """
    planner = _Planner(policies, targets, day, enforcement_id)
    is_live: Column = pc.equal(decisions["mode"], pa.scalar("live"))
    live = decisions.filter(is_live)
    decided = _of_images(live, planner.acted_on(live), history.source_refs).to_pylist()
    # Also an image without a live decision may have a history: no policy is live any more.
    known = _of_images(decisions, history.source_refs)
    by_image: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in known.select(["source_ref", "etag", "outcome"]).to_pylist():
        by_image.setdefault((row["source_ref"], row["etag"], row["outcome"]), [])
    for row in decided:
        by_image.setdefault((row["source_ref"], row["etag"], row["outcome"]), []).append(row)
    for (source_ref, etag, outcome), rows in sorted(by_image.items()):
        so_far = history.of(source_ref, etag)
        if outcome not in ANSWERED and so_far.answer_stands(_severity(rows)):
            yield from planner.go_on(rows, so_far)
        else:
            yield from planner.plan(rows, so_far)


class _Planner:
    def __init__(self, policies: Sequence[Policy], targets: Targets, day: str, enforcement_id: str) -> None:
        self._policies = {policy.name: policy for policy in policies}
        self._targets = targets
        self._day = day
        self._enforcement_id = enforcement_id

    def acted_on(self, live: pa.Table) -> Column:
        """Return the images whose decisions ask for any action."""
        columns = ["policy", "rule", "verdict"]
        combinations = live.select(columns).group_by(columns).aggregate([]).to_pylist()
        acting = {(row["policy"], row["rule"], row["verdict"]) for row in combinations if self._kinds(row)}
        masks = [_has(live, *combination) for combination in sorted(acting, key=str)]
        acted_on = [_names(live.filter(mask)) for mask in masks]
        return pa.concat_arrays([pa.array([], pa.string()), *acted_on]).unique()

    def plan(self, rows: list[dict[str, Any]], history: _ImageHistory) -> Iterator[Intent]:
        wanted = self._wanted(rows)
        superseded = []
        for row in history.open:
            undo_status = history.undo_status(row)
            is_wanted = (row["kind"], row["target"]) in wanted
            # An undo that began is brought to its end, whatever is wanted now.
            if undo_status == REQUESTED or (not is_wanted and undo_status in (None, "failed")):
                superseded.append(row)
        verdicts = ", ".join(sorted({row["verdict"] for row in rows})) or "no verdict"
        yield from self._undo(superseded, history, f"Released: {verdicts} now")
        for row in history.undone_in_vain(superseded):
            if (row["kind"], row["target"]) not in wanted or row["kind"] in history.undone_by_people:
                missed = history.undos[row["action_id"]]
                yield from self._undo([row], history, missed["reason"], missed["actor"])
        yield from self._do_all(wanted, history, superseded)

    def go_on(self, rows: list[dict[str, Any]], history: _ImageHistory) -> Iterator[Intent]:
        """Yield the undos that began, what the last answer asked for, and more for the same verdict."""
        begun = [row for row in history.open if history.undo_status(row) == REQUESTED]
        yield from self._undo(begun, history, "Released: it began before")
        is_the_same = _severity(rows) == _severity(history.answered_and_kept)
        wanted = (self._wanted(rows) if is_the_same else {}) | {
            (row["kind"], row["target"]): row
            | {"outcome": Outcome.JUDGED, "reasons": json.loads(row["detail"]).get("labels", [])}
            for row in history.unfinished_of_answer
            if row["policy"] in self._policies and self._policies[row["policy"]].status == "live"
        }
        yield from self._do_all(wanted, history, begun)

    def _undo(
        self,
        rows: Iterable[Mapping[str, Any]],
        history: _ImageHistory,
        reason: str | None,
        actor: str = MODLAKE,
    ) -> Iterator[Intent]:
        for row in rows:
            undo = undo_of(row, enforcement_id=self._enforcement_id, actor=actor, reason=reason)
            yield replace(undo, etag=history.etag)

    def _do_all(
        self,
        wanted: Mapping[tuple[str, str], dict[str, Any]],
        history: _ImageHistory,
        superseded: list[dict[str, Any]],
    ) -> Iterator[Intent]:
        for (kind, target), row in wanted.items():
            if kind not in history.undone_by_people:
                yield from self._do(kind, target, row, history, superseded)

    def _do(
        self,
        kind: str,
        target: str,
        row: dict[str, Any],
        history: _ImageHistory,
        superseded: list[dict[str, Any]],
    ) -> Iterator[Intent]:
        earlier = history.named(kind, target)
        ended = [each for each in earlier if each["status"] == UNDONE or each in superseded]
        current = [
            each for each in earlier if each not in ended and not history.sought_in_vain(each, superseded)
        ]
        # One that failed, or that nobody knows the end of, is tried again under its own name.
        names = [each["action_id"] for each in current if each["status"] in (REQUESTED, "failed")]
        if any(each["status"] == "completed" for each in current) or (current and not names):
            return
        names.append(action_id(self._day, row["source_ref"], history.etag, kind, target, len(ended)))
        detail = {"labels": row["reasons"]}
        if row["outcome"] not in ANSWERED:
            detail["outcome"] = row["outcome"]
        if others := history.others(kind, target):
            detail["supersedes"] = {each["action_id"]: each["target"] for each in others}
        yield Intent(
            action_id=names[0],
            day=self._day,
            source_ref=row["source_ref"],
            etag=history.etag,
            kind=kind,
            target=target,
            enforcement_id=self._enforcement_id,
            detail=detail,
            policy=row["policy"],
            policy_version=row["policy_version"],
            rule=row["rule"],
            verdict=row["verdict"],
        )

    def _wanted(self, rows: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
        """Return the decision that asks for an action, by kind and target."""
        most = _severity(rows)
        wanted: dict[tuple[str, str], dict[str, Any]] = {}
        order = list(self._policies)
        for row in sorted(rows, key=lambda row: order.index(row["policy"])):
            if Verdict(row["verdict"]).severity == most:
                for kind in self._kinds(row):
                    wanted.setdefault((kind, self._targets.of(kind, row["verdict"])), row)
        return wanted

    def _kinds(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        policy = self._policies[row["policy"]]
        rule = policy.rule(row["rule"]) if row["rule"] is not None else None
        return policy.actions_for(rule, Verdict(row["verdict"]))


def _of_images(rows: pa.Table, *source_refs: Column) -> pa.Table:
    wanted: Column = pa.concat_arrays(list(source_refs)).unique()
    is_wanted: Column = pc.is_in(_names(rows), value_set=wanted)
    return rows.filter(is_wanted)


def _names(rows: pa.Table) -> Column:
    return rows["source_ref"].combine_chunks().cast(pa.string())


def _has(rows: pa.Table, policy: str, rule: str | None, verdict: str) -> Column:
    has_policy: Column = pc.equal(rows["policy"], pa.scalar(policy))
    has_verdict: Column = pc.equal(rows["verdict"], pa.scalar(verdict))
    has_rule: Column = pc.is_null(rows["rule"]) if rule is None else pc.equal(rows["rule"], pa.scalar(rule))
    return pc.and_(pc.and_(has_policy, has_verdict), pc.fill_null(has_rule, False))
