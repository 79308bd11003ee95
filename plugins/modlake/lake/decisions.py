"""The tables ``decisions`` and ``enforcements``: what policies say of a day, and what that changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from itertools import groupby
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog

from modlake.exceptions import ModlakeTerminalError
from modlake.lake.data_files import describe_files
from modlake.lake.days import (
    OvertakenError,
    of_day,
    replace_with_files,
    replace_with_rows,
    until_committed,
)
from modlake.lake.filters import between, equal_to
from modlake.lake.labelled_batches import PublishedDay, published_days, read_labelled_batches
from modlake.lake.new_files import NewFiles
from modlake.lake.schemas import DECISIONS_TABLE, ENFORCEMENTS_TABLE
from modlake.lake.table_files import TableFiles
from modlake.pipeline.columns import Column
from modlake.pipeline.decidable import decidable
from modlake.policy.evaluation import IMAGE_COLUMNS, LABEL_COLUMNS, evaluate
from modlake.policy.policy import Policy, Verdict

ROWS_PER_FILE = 1_000_000

_PREVIOUS = pa.schema(
    [
        DECISIONS_TABLE.row_schema.field(name)
        for name in ("source_ref", "verdict", "policy", "policy_version", "rule", "mode", "run_id")
    ]
)
# By these a decision is told from another one of the same policy about the same image.
_SAME = ("verdict", "rule")
_SAME_ROW = (*_SAME, "policy_version", "mode", "run_id")


class _Key(NamedTuple):
    policy: str
    rule: str | None
    verdict: str


@dataclass(frozen=True, slots=True)
class Figures:
    """What a rule of a policy decided on a day; ``rule`` is None where none hit.

    :param newly_hit: images of which the day's decisions before said something else, or nothing
    :param released: images of which only the decisions before said so
    """

    policy: str
    policy_version: str
    mode: str
    rule: str | None
    verdict: str
    images: int
    newly_hit: int
    released: int
    unchanged: int


@dataclass(frozen=True, slots=True)
class PolicyDifference:
    """What a policy blocks and has reviewed on a day, and what of it is new, gone, or as before."""

    policy: str
    policy_version: str
    mode: str
    block: int
    review: int
    newly_hit: int
    released: int
    unchanged: int


def by_policy(figures: Sequence[Figures]) -> list[PolicyDifference]:
    """Sum up figures by policy; images that are allowed count as not hit."""

    def difference(rows: list[Figures]) -> PolicyDifference:
        hits = [row for row in rows if row.verdict != Verdict.ALLOW]
        by_verdict: Counter[str] = Counter()
        for row in hits:
            by_verdict[row.verdict] += row.images
        return PolicyDifference(
            rows[0].policy,
            rows[0].policy_version,
            rows[0].mode,
            block=by_verdict[Verdict.BLOCK],
            review=by_verdict[Verdict.REVIEW],
            newly_hit=sum(row.newly_hit for row in hits),
            released=sum(row.released for row in hits),
            unchanged=sum(row.unchanged for row in hits),
        )

    return [difference(list(rows)) for _, rows in groupby(figures, lambda row: row.policy)]


class DayDecisions:
    """The decisions of policies about a published day.

    First go through ``batches``, then ``commit``. Memory holds a batch, and a compressed file.
    """

    def __init__(self, catalog: Catalog, published: PublishedDay, policies: Sequence[Policy]) -> None:
        self._catalog = catalog
        self._published = published
        self._policies = [policy for policy in policies if policy.status in ("live", "shadow")]
        self._now = datetime.now(UTC)
        self._files = NewFiles(
            catalog.load_table(DECISIONS_TABLE.identifier), published.day, "decided", ROWS_PER_FILE
        )
        self._previous = TableFiles(
            catalog.load_table(DECISIONS_TABLE.identifier),
            equal_to("day", published.day.isoformat()),
            _PREVIOUS,
        )
        self._hits: Counter[_Key] = Counter()
        self._unchanged: Counter[_Key] = Counter()
        self._equal_rows = 0
        self.images = 0

    def batches(self) -> Iterator[pa.Table]:
        """Yield the decisions with the images' ``etag``, ``last_modified`` and ``outcome``, some at a time.

        Images that were set aside are not decided.
        """
        try:
            for batch in read_labelled_batches(
                self._catalog,
                self._published,
                image_columns=(*IMAGE_COLUMNS, "etag", "last_modified", "error_code"),
                label_columns=LABEL_COLUMNS,
            ):
                images = decidable(batch.images)
                if images.num_rows:
                    yield self._decide(images, batch.labels)
        except BaseException:
            self._files.discard()
            raise

    def commit(self, enforcement_id: str) -> tuple[list[Figures], bool]:
        """Replace the day's rows, the figures first; return these, and whether anything was changed.

        Decisions that are the same already are let be, with the figures of when they were made. Of two that
        decide the day at once, one ends as a whole.

        Raises ModlakeTransientError when others kept committing to the same day.
        """
        before = self._count_previous()
        figures = self._figures(before)
        rows_before = sum(before.values())
        day = self._published.day
        is_unchanged = self._equal_rows == self._files.rows == rows_before
        # Figures of others may stand there since: whoever wrote them was killed before the decisions.
        if is_unchanged and is_current(self._catalog, day, self._published.run_id, map(asdict, figures)):
            self._files.discard()
            return figures, False
        properties = {
            "modlake.day": day.isoformat(),
            "modlake.run_id": self._published.run_id,
            "modlake.enforcement_id": enforcement_id,
        }
        rows = self._enforcement_rows(enforcement_id, figures)
        uris = self._files.finish()

        def replace() -> None:
            enforcements = self._catalog.load_table(ENFORCEMENTS_TABLE.identifier)
            replace_with_rows(enforcements, day, rows, properties)
            decisions = self._catalog.load_table(DECISIONS_TABLE.identifier)
            files = describe_files(decisions, uris, day, f"Clear the task that decides {day}.")
            replace_with_files(decisions, day, files, properties)
            if not self._are_there([enforcement_id] * rows.num_rows, uris):
                raise OvertakenError(f"somebody else decided {day} at the same time")

        until_committed(replace, f"The decisions of {day} could not be written")
        return figures, True

    def _are_there(self, enforcement_ids: list[str], uris: list[str]) -> bool:
        """Tell whether the day consists of rows of figures with these ids, and of these files."""
        day = self._published.day
        figures = read_enforcements(self._catalog, day, day)
        decisions = self._catalog.load_table(DECISIONS_TABLE.identifier)
        files = {task.file.file_path for task in decisions.scan(of_day(day)).plan_files()}
        return files == set(uris) and [row["enforcement_id"] for row in figures] == enforcement_ids

    def _decide(self, images: pa.Table, labels: pa.Table) -> pa.Table:
        before = self._before(images["source_ref"])
        tables = [DECISIONS_TABLE.row_schema.empty_table()]
        for policy in self._policies:
            verdicts = evaluate(policy, images, labels)
            decided = self._as_rows(verdicts)
            of_policy: Column = pc.equal(before["policy"], pa.scalar(policy.name))
            self._compare(decided, before.filter(of_policy))
            tables.append(decided)
        decisions = pa.concat_tables(tables).sort_by([("source_ref", "ascending"), ("policy", "ascending")])
        self._files.add(decisions)
        self.images += images.num_rows
        row: Column = pc.index_in(decisions["source_ref"], value_set=images["source_ref"])
        for name in ("etag", "last_modified", "outcome"):
            decisions = decisions.append_column(name, images[name].take(row))
        return decisions

    def _as_rows(self, verdicts: pa.Table) -> pa.Table:
        constants = {
            "day": self._published.day,
            "decided_at": self._now,
            "run_id": self._published.run_id,
        }
        schema = DECISIONS_TABLE.row_schema
        return pa.table(
            [
                pa.repeat(pa.scalar(constants[field.name], field.type), verdicts.num_rows)
                if field.name in constants
                else verdicts[field.name].cast(field.type)
                for field in schema
            ],
            schema=schema,
        )

    def _before(self, source_refs: Column) -> pa.Table:
        span = (source_refs[0].as_py(), source_refs[-1].as_py())
        found = [
            rows.filter(pc.is_in(rows["source_ref"], value_set=source_refs))
            for rows in self._previous.read(span)
        ]
        return pa.concat_tables([_PREVIOUS.empty_table(), *found])

    def _compare(self, decided: pa.Table, before: pa.Table) -> None:
        row: Column = pc.index_in(decided["source_ref"], value_set=before["source_ref"])
        earlier = before.take(row)
        is_same = _all_equal(decided, earlier, _SAME)
        self._equal_rows += pc.sum(_all_equal(decided, earlier, _SAME_ROW)).as_py() or 0
        self._hits += _counts(decided)
        self._unchanged += _counts(decided.filter(is_same))

    def _count_previous(self) -> Counter[_Key]:
        counts: Counter[_Key] = Counter()
        self._known: dict[str, tuple[str, str]] = {}
        for rows in self._previous.read():
            counts += _counts(rows)
            for policy, version, mode in _distinct(rows, ["policy", "policy_version", "mode"]):
                self._known[policy] = (version, mode)
        return counts

    def _figures(self, before: Counter[_Key]) -> list[Figures]:
        now = {policy.name: (policy.version, policy.status) for policy in self._policies}
        rules = [
            _Key(policy.name, rule.name, rule.verdict) for policy in self._policies for rule in policy.rules
        ]
        # Rules without a hit, too: that is part of their history.
        keys = {*rules, *self._hits, *before}
        return [
            Figures(
                policy=key.policy,
                policy_version=(now.get(key.policy) or self._known[key.policy])[0],
                mode=(now.get(key.policy) or self._known[key.policy])[1],
                rule=key.rule,
                verdict=str(key.verdict),
                images=self._hits[key],
                newly_hit=self._hits[key] - self._unchanged[key],
                released=before[key] - self._unchanged[key],
                unchanged=self._unchanged[key],
            )
            for key in sorted(
                keys, key=lambda key: (key.policy, key.rule is None, key.rule or "", key.verdict)
            )
        ]

    def _enforcement_rows(self, enforcement_id: str, figures: list[Figures]) -> pa.Table:
        rows = [
            {
                "day": self._published.day,
                "enforcement_id": enforcement_id,
                "run_id": self._published.run_id,
                "share": each.images / self.images if self.images else 0.0,
                "decided_at": self._now,
                **{name: getattr(each, name) for name in Figures.__slots__},
            }
            for each in figures
        ]
        return pa.Table.from_pylist(rows, ENFORCEMENTS_TABLE.row_schema)


def read_published(catalog: Catalog, day: date) -> PublishedDay:
    """Return the published run of a day; raise ModlakeTerminalError when there is none."""
    found = published_days(catalog, day, day)
    if not found:
        raise ModlakeTerminalError(
            f"{day} is not published, so there is nothing to decide: run moderate_images for it first."
        )
    return found[0]


def read_enforcements(catalog: Catalog, first: date, last: date) -> list[dict[str, Any]]:
    """Return the rows of ``enforcements`` of these days, and of those between."""
    table = catalog.load_table(ENFORCEMENTS_TABLE.identifier)
    scan = table.scan(between("day", first.isoformat(), last.isoformat()))
    rows: list[dict[str, Any]] = scan.to_arrow().to_pylist()
    return rows


def is_current(catalog: Catalog, day: date, run_id: str, figures: Iterable[Mapping[str, Any]]) -> bool:
    """Tell whether these figures, as rows, are still those of the day, and of that published run."""
    names = ("policy", "policy_version", "mode", "rule", "verdict", "images")

    def hits(rows: Iterable[Mapping[str, Any]]) -> set[tuple[Any, ...]]:
        return {tuple(row[name] for name in names) for row in rows if row["images"]}

    stored = read_enforcements(catalog, day, day)
    return hits(stored) == hits(figures) and all(row["run_id"] == run_id for row in stored)


def _all_equal(rows: pa.Table, others: pa.Table, columns: Sequence[str]) -> Column:
    """Tell which rows are equal in all columns; two nulls are equal, also those of an absent row."""
    are_equal: Column = pc.is_valid(others["source_ref"])
    for name in columns:
        equal: Column = pc.equal(rows[name], others[name])
        both_null: Column = pc.and_(pc.is_null(rows[name]), pc.is_null(others[name]))
        are_equal = pc.and_(are_equal, pc.or_(pc.fill_null(equal, False), both_null))
    return are_equal


def _counts(rows: pa.Table) -> Counter[_Key]:
    columns = list(_Key._fields)
    counted = rows.group_by(columns, use_threads=False).aggregate([([], "count_all")])
    return Counter({_Key(*(row[name] for name in columns)): row["count_all"] for row in counted.to_pylist()})


def _distinct(rows: pa.Table, columns: list[str]) -> list[tuple[str, ...]]:
    distinct = rows.group_by(columns, use_threads=False).aggregate([]).to_pylist()
    return [tuple(row[name] for name in columns) for row in distinct]
