"""What is to be done about images: the difference between what policies decide and what was done before."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from modlake.pipeline.columns import Column
from modlake.pipeline.outcomes import ANSWERED, Outcome
from modlake.policy.action_history import ActionHistory, ImageHistory, severity_of
from modlake.policy.intents import MODLAKE, OBJECT_ACTION_KINDS, UNDONE, Intent, action_id, undo_of
from modlake.policy.policy import Policy, Verdict
from modlake.policy.targets import Targets


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

    :param decisions: rows of ``decisions`` and the images' ``etag``, ``last_modified`` and ``outcome``; an
        image that isn't among them is let be
    """
    planner = _Planner(policies, targets, day, enforcement_id)
    is_live: Column = pc.equal(decisions["mode"], pa.scalar("live"))
    live = decisions.filter(is_live)
    decided = _of_images(live, planner.acted_on(live), history.source_refs).to_pylist()
    # Also an image without a live decision may have a history: no policy is live any more.
    known = _of_images(decisions, history.source_refs)
    image = itemgetter("source_ref", "etag", "last_modified", "outcome")
    by_image: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in known.select(["source_ref", "etag", "last_modified", "outcome"]).to_pylist():
        by_image.setdefault(image(row), [])
    for row in decided:
        by_image.setdefault(image(row), []).append(row)
    for (source_ref, etag, last_modified, outcome), rows in sorted(by_image.items()):
        so_far = history.of(source_ref, etag, last_modified)
        if outcome not in ANSWERED and so_far.answer_stands(severity_of(rows)):
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

    def plan(self, rows: list[dict[str, Any]], history: ImageHistory) -> Iterator[Intent]:
        wanted = self._wanted(rows)
        released = [
            row
            for row in history.open
            if (row["kind"], row["target"]) not in wanted and history.undo_status(row) in (None, "failed")
        ]
        # An undo that began is brought to its end, whatever is wanted now.
        begun = history.undos_begun
        superseded = [row for row in history.actions if row in released or row in begun]
        verdicts = ", ".join(sorted({row["verdict"] for row in rows})) or "no verdict"
        yield from self._undo(superseded, history, f"Released: {verdicts} now")
        for row in history.undone_in_vain(superseded):
            if (row["kind"], row["target"]) not in wanted or row["kind"] in history.undone_by_people:
                missed = history.undos[row["action_id"]]
                yield from self._undo([row], history, missed["reason"], missed["actor"])
        yield from self._do_all(wanted, history, superseded)

    def go_on(self, rows: list[dict[str, Any]], history: ImageHistory) -> Iterator[Intent]:
        """Yield the undos that began, what the last answer asked for, and more for the same verdict."""
        begun = history.undos_begun
        yield from self._undo(begun, history, "Released: it began before")
        is_the_same = severity_of(rows) == severity_of(history.answered_and_kept)
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
        history: ImageHistory,
        reason: str | None,
        actor: str = MODLAKE,
    ) -> Iterator[Intent]:
        for row in rows:
            undo = undo_of(row, enforcement_id=self._enforcement_id, actor=actor, reason=reason)
            yield replace(undo, etag=history.etag)

    def _do_all(
        self,
        wanted: Mapping[tuple[str, str], dict[str, Any]],
        history: ImageHistory,
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
        history: ImageHistory,
        superseded: list[dict[str, Any]],
    ) -> Iterator[Intent]:
        earlier = history.named(kind, target)
        ended = [
            each
            for each in earlier
            if each["status"] == UNDONE or each in superseded or history.is_overwritten(each)
        ]
        current = [
            each for each in earlier if each not in ended and not history.sought_in_vain(each, superseded)
        ]
        # One that is not finished is tried again under its own name.
        unfinished = [each for each in current if history.is_unfinished(each)]
        is_done = any(each["status"] == "completed" and each not in unfinished for each in current)
        if is_done or (current and not unfinished):
            return
        names = [each["action_id"] for each in unfinished]
        names.append(action_id(self._day, row["source_ref"], history.etag, kind, target, len(ended)))
        detail = {"labels": row["reasons"]}
        if kind in OBJECT_ACTION_KINDS:
            detail["last_modified"] = history.last_modified
        if row["outcome"] not in ANSWERED:
            detail["outcome"] = row["outcome"]
        if others := history.others(kind, names[0]):
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
        most = severity_of(rows)
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
