"""Results of jobs to Parquet: a row a label and a row an image, from local files to local files.

``modlake flatten`` is the part of landing that the others do too; ``modlake land`` is the whole step: it also
joins each line to the inventory, reads the summary, looks up each label's path in the taxonomy, picks the
top label, counts outcomes and models, digests the rows, and fills all columns of the tables.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from tests.bench.bench_cloud import WORK, bench_cloud, client, found_by_every_library
from tests.bench.directory_store import IMAGES_PER_SHARD, MadeUpDay
from tests.bench.harness import Way, compare
from tests.bench.results_files import write_results

WAYS = [
    Way(
        "modlake flatten",
        "arro3 with a schema, Arrow kernels, a thread more than cores",
        f"{__name__}:modlake",
    ),
    Way("modlake land", "the whole step, all columns", f"{__name__}:modlake_land"),
    Way("DuckDB", "read_json with columns, UNNEST, COPY", f"{__name__}:with_duckdb"),
    Way("Polars", "read_ndjson with a schema, explode; file by file", f"{__name__}:with_polars"),
    Way("pyarrow", "read_json as it infers, list_flatten; file by file", f"{__name__}:with_pyarrow"),
    Way("orjson loop", "a Python loop over orjson's objects, pyarrow", f"{__name__}:with_orjson"),
    Way("msgspec loop", "a Python loop over typed objects, pyarrow", f"{__name__}:with_msgspec"),
    Way("pandas", "json_normalize; file by file", f"{__name__}:with_pandas"),
    Way(
        "awswrangler", "s3.read_json, explode, s3.to_parquet; S3 is SeaweedFS", f"{__name__}:with_awswrangler"
    ),
]
LABEL = "STRUCT(Confidence DOUBLE, Name VARCHAR, ParentName VARCHAR, TaxonomyLevel BIGINT)"
CONTENT_TYPE = "STRUCT(Confidence DOUBLE, Name VARCHAR)"
ANSWER = f"STRUCT(ModerationLabels {LABEL}[], ModerationModelVersion VARCHAR, ContentTypes {CONTENT_TYPE}[])"
COLUMNS = f"{{'source-ref': 'VARCHAR', 'detect-moderation-labels': '{ANSWER}'}}"


def run(
    size: int = 1_000_000,
    *,
    home: Path,
    repeats: int = 3,
    isolated: bool = True,
    images_per_shard: int = IMAGES_PER_SHARD,
    ways: list[Way] | None = None,
) -> dict[str, Any]:
    """Land that many results in each way; the yardstick is DuckDB."""
    paths = write_results(
        home / f"results-{images_per_shard}", -(-size // images_per_shard), images_per_shard
    )
    names = [way.name for way in ways or WAYS]
    with ExitStack() as stack:
        arguments: dict[str, Any] = {"paths": paths, "home": str(home), "images": size}
        if "awswrangler" in names:
            settings = stack.enter_context(bench_cloud(home / "cloud"))
            stack.enter_context(found_by_every_library(settings))
            s3 = client(settings)
            for path in paths:
                s3.upload_file(path, WORK, f"bench/results/{size}/{Path(path).name}")
        return compare(
            f"Land {size:,} results in {len(paths)} files",
            "images",
            size,
            ways or WAYS,
            arguments,
            yardstick="DuckDB",
            repeats=repeats,
            isolated=isolated,
        )


_Told = tuple[str, list[dict[str, Any]], dict[str, float], str]


class _Answer(msgspec.Struct):
    labels: list[dict[str, Any]] = msgspec.field(name="ModerationLabels")
    version: str = msgspec.field(name="ModerationModelVersion")
    content_types: list[dict[str, Any]] = msgspec.field(name="ContentTypes")


class _Line(msgspec.Struct):
    source_ref: str = msgspec.field(name="source-ref")
    answer: _Answer = msgspec.field(name="detect-moderation-labels")


class Work:
    """Writes ``labels*.parquet`` and ``images*.parquet`` into a folder, which is looked at afterwards."""

    def __init__(
        self,
        home: str,
        turn: str,
        work: Callable[[Path], None],
        fetch: Callable[[Path], None] = lambda _: None,
    ) -> None:
        self._folder = Path(home, "landed", turn)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self._work = work
        self._fetch = fetch

    def __call__(self) -> None:
        self._work(self._folder)

    def check(self, _: None) -> dict[str, Any]:
        """Return how many rows there are, and what they add up to."""
        self._fetch(self._folder)
        labels = duckdb.sql(
            "select count(*), sum(confidence::decimal(18, 8)), count(distinct label), sum(taxonomy_level), "
            f"count(distinct source_ref) from '{self._folder}/labels*.parquet'"
        ).fetchone()
        images = duckdb.sql(
            "select count(*), count(distinct source_ref), sum(label_count), "
            "sum(top_confidence::decimal(18, 8)), "
            "sum(animated_confidence::decimal(18, 8)), sum(illustrated_confidence::decimal(18, 8)) "
            f"from '{self._folder}/images*.parquet'"
        ).fetchone()
        shutil.rmtree(self._folder)
        return {"labels": _plain(labels), "images": _plain(images)}


def modlake(paths: list[str], home: str, images: int, turn: str) -> Work:
    import arro3.core  # noqa: F401 imported when first used
    import pyarrow as pa
    import pyarrow.acero
    import pyarrow.compute as pc

    from modlake.pipeline.columns import field_of, places_of, taken
    from modlake.pipeline.labels import (
        content_type_confidence,
        flatten_labels,
        spread_labels,
        top_labels,
    )
    from modlake.pipeline.parquet import encode_parquet
    from modlake.pipeline.results import read_results
    from modlake.pipeline.side_by_side import side_by_side

    def land(folder: Path, path: str) -> None:
        results = read_results(Path(path), path)
        answers, answer = results.answers, results.lines["answer"].combine_chunks()
        flat = flatten_labels(answers)
        spread = spread_labels(flat, answers, answer)
        version = taken(field_of(answers, "ModerationModelVersion"), answer)
        image = spread["image"].combine_chunks()
        columns = ["label", "parent_label", "taxonomy_level", "confidence"]
        labels = pa.table(
            {"source_ref": results.lines["source_ref"].take(image)}
            | {name: spread[name] for name in columns}
            | {"model_version": version.take(image)}
        )
        top = top_labels(flat)
        row = places_of(top["answer"].combine_chunks(), len(answers))
        rows = pa.table(
            {
                "source_ref": results.lines["source_ref"],
                "label_count": taken(pc.list_value_length(field_of(answers, "ModerationLabels")), answer),
                "top_confidence": taken(top["confidence"].take(row), answer),
                "animated_confidence": taken(content_type_confidence(answers, "Animated"), answer),
                "illustrated_confidence": taken(content_type_confidence(answers, "Illustrated"), answer),
                "model_version": version,
            }
        )
        folder.joinpath(f"labels-{Path(path).stem}.parquet").write_bytes(encode_parquet(labels))
        folder.joinpath(f"images-{Path(path).stem}.parquet").write_bytes(encode_parquet(rows))

    def work(folder: Path) -> None:
        for _ in side_by_side(partial(land, folder), paths):
            pass

    return Work(home, turn, work)


def modlake_land(paths: list[str], home: str, images: int, turn: str) -> Work:
    import arro3.core  # noqa: F401 imported when first used
    import pyarrow.acero  # noqa: F401 imported when first used

    from modlake.pipeline.landing import land_shards
    from tests.support.days import plan_day

    store = MadeUpDay(
        Path(home, "day", turn), images=images, images_per_shard=images // len(paths), results=paths
    )
    shutil.rmtree(store.root, ignore_errors=True)
    plan = plan_day(
        store,
        source_uri="s3://modlake-ugc/uploads/2026-11-21/",
        allowed_uris=["s3://modlake-ugc/"],
        images_per_manifest=images // len(paths),
    )
    store.finish_jobs(plan)
    store.make_up_names()

    def work(folder: Path) -> None:
        for landed in land_shards(store, plan, range(len(plan.shards)), "1"):
            for uri in filter(None, (landed.images_uri, landed.labels_uri)):
                store.path(uri).rename(folder / Path(uri).name)

    return Work(home, turn, work)


def with_duckdb(paths: list[str], home: str, images: int, turn: str) -> Work:
    def work(folder: Path) -> None:
        connection = duckdb.connect()
        connection.execute(
            f'create table lines as select "source-ref" as source_ref, "detect-moderation-labels" as answer '
            f"from read_json({paths}, format='newline_delimited', columns={COLUMNS})"
        )
        connection.execute(
            "copy (select source_ref, label.Name as label, label.ParentName as parent_label, "
            "label.TaxonomyLevel as taxonomy_level, label.Confidence as confidence, "
            "version as model_version from (select source_ref, unnest(answer.ModerationLabels) as label, "
            "answer.ModerationModelVersion as version from lines)) "
            f"to '{folder}/labels.parquet' (format parquet, compression zstd)"
        )
        connection.execute(
            "copy (select source_ref, len(answer.ModerationLabels) as label_count, "
            "list_max(list_transform(answer.ModerationLabels, lambda each: each.Confidence)) "
            "as top_confidence, "
            "list_filter(answer.ContentTypes, lambda each: each.Name = 'Animated')[1].Confidence "
            "as animated_confidence, "
            "list_filter(answer.ContentTypes, lambda each: each.Name = 'Illustrated')[1].Confidence "
            "as illustrated_confidence, "
            "answer.ModerationModelVersion as model_version from lines) "
            f"to '{folder}/images.parquet' (format parquet, compression zstd)"
        )

    return Work(home, turn, work)


def with_polars(paths: list[str], home: str, images: int, turn: str) -> Work:
    import polars as pl

    label = pl.Struct(
        {"Confidence": pl.Float64, "Name": pl.String, "ParentName": pl.String, "TaxonomyLevel": pl.Int64}
    )
    kind = pl.Struct({"Confidence": pl.Float64, "Name": pl.String})
    answer = pl.Struct(
        {
            "ModerationLabels": pl.List(label),
            "ModerationModelVersion": pl.String,
            "ContentTypes": pl.List(kind),
        }
    )
    schema = {"source-ref": pl.String, "detect-moderation-labels": answer}

    def confidence_of(content_type: str) -> pl.Expr:
        is_asked = pl.element().struct.field("Name") == content_type
        found = pl.col("ContentTypes").list.eval(pl.element().filter(is_asked).struct.field("Confidence"))
        return found.list.first()

    def work(folder: Path) -> None:
        for path in paths:
            lines = pl.read_ndjson(path, schema=schema).rename({"source-ref": "source_ref"})
            lines = lines.unnest("detect-moderation-labels")
            found = (
                lines.explode("ModerationLabels").drop_nulls("ModerationLabels").unnest("ModerationLabels")
            )
            found.select(
                "source_ref",
                pl.col("Name").alias("label"),
                pl.col("ParentName").alias("parent_label"),
                pl.col("TaxonomyLevel").alias("taxonomy_level"),
                pl.col("Confidence").alias("confidence"),
                pl.col("ModerationModelVersion").alias("model_version"),
            ).write_parquet(folder / f"labels-{Path(path).stem}.parquet")
            confidences = pl.col("ModerationLabels").list.eval(pl.element().struct.field("Confidence"))
            lines.select(
                "source_ref",
                pl.col("ModerationLabels").list.len().alias("label_count"),
                confidences.list.max().alias("top_confidence"),
                confidence_of("Animated").alias("animated_confidence"),
                confidence_of("Illustrated").alias("illustrated_confidence"),
                pl.col("ModerationModelVersion").alias("model_version"),
            ).write_parquet(folder / f"images-{Path(path).stem}.parquet")

    return Work(home, turn, work)


def with_pyarrow(paths: list[str], home: str, images: int, turn: str) -> Work:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.json as pj
    import pyarrow.parquet as pq

    def confidence_of(kinds: Any, content_type: str) -> Any:
        kind = pc.list_flatten(kinds)
        is_asked = pc.equal(pc.struct_field(kind, "Name"), content_type)
        asked = pc.list_parent_indices(kinds).filter(is_asked)
        row = pc.index_in(pa.array(range(len(kinds)), pc.list_parent_indices(kinds).type), value_set=asked)
        return pc.struct_field(kind, "Confidence").filter(is_asked).take(row)

    def work(folder: Path) -> None:
        for path in paths:
            lines = pj.read_json(path)
            lines = lines.combine_chunks()
            source_ref = lines["source-ref"].combine_chunks()
            answer = lines["detect-moderation-labels"].combine_chunks()
            lists = pc.struct_field(answer, "ModerationLabels")
            version = pc.struct_field(answer, "ModerationModelVersion")
            image, flat = pc.list_parent_indices(lists), pc.list_flatten(lists)
            labels = pa.table(
                {
                    "source_ref": source_ref.take(image),
                    "label": pc.struct_field(flat, "Name"),
                    "parent_label": pc.struct_field(flat, "ParentName"),
                    "taxonomy_level": pc.struct_field(flat, "TaxonomyLevel"),
                    "confidence": pc.struct_field(flat, "Confidence"),
                    "model_version": version.take(image),
                }
            )
            pq.write_table(labels, folder / f"labels-{Path(path).stem}.parquet", compression="zstd")
            top = labels.group_by("source_ref").aggregate([("confidence", "max")])
            kinds = pc.struct_field(answer, "ContentTypes")
            rows = pa.table(
                {
                    "source_ref": source_ref,
                    "label_count": pc.list_value_length(lists),
                    "top_confidence": top["confidence_max"].take(
                        pc.index_in(source_ref, value_set=top["source_ref"])
                    ),
                    "animated_confidence": confidence_of(kinds, "Animated"),
                    "illustrated_confidence": confidence_of(kinds, "Illustrated"),
                    "model_version": version,
                }
            )
            pq.write_table(rows, folder / f"images-{Path(path).stem}.parquet", compression="zstd")

    return Work(home, turn, work)


def with_orjson(paths: list[str], home: str, images: int, turn: str) -> Work:
    import orjson

    def lines(path: str) -> Iterator[_Told]:
        with Path(path).open("rb") as file:
            for line in file:
                told = orjson.loads(line)
                answer = told["detect-moderation-labels"]
                kinds = {kind["Name"]: kind["Confidence"] for kind in answer["ContentTypes"]}
                version = answer["ModerationModelVersion"]
                yield told["source-ref"], answer["ModerationLabels"], kinds, version

    return Work(home, turn, lambda folder: _in_a_loop(folder, paths, lines))


def with_msgspec(paths: list[str], home: str, images: int, turn: str) -> Work:
    decoder = msgspec.json.Decoder(_Line)

    def lines(path: str) -> Iterator[_Told]:
        for line in decoder.decode_lines(Path(path).read_bytes()):
            kinds = {kind["Name"]: kind["Confidence"] for kind in line.answer.content_types}
            yield line.source_ref, line.answer.labels, kinds, line.answer.version

    return Work(home, turn, lambda folder: _in_a_loop(folder, paths, lines))


def _in_a_loop(
    folder: Path,
    paths: list[str],
    read: Callable[[str], Iterator[_Told]],
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in paths:
        labels: list[tuple[Any, ...]] = []
        rows: list[tuple[Any, ...]] = []
        for source_ref, found, kinds, version in read(path):
            top = None
            for each in found:
                confidence = each["Confidence"]
                top = confidence if top is None or confidence > top else top
                labels.append(
                    (source_ref, each["Name"], each["ParentName"], each["TaxonomyLevel"], confidence, version)
                )
            rows.append(
                (source_ref, len(found), top, kinds.get("Animated"), kinds.get("Illustrated"), version)
            )
        names = ["source_ref", "label", "parent_label", "taxonomy_level", "confidence", "model_version"]
        pq.write_table(
            pa.table(list(map(list, zip(*labels, strict=True))), names),
            folder / f"labels-{Path(path).stem}.parquet",
            compression="zstd",
        )
        names = [
            "source_ref",
            "label_count",
            "top_confidence",
            "animated_confidence",
            "illustrated_confidence",
            "model_version",
        ]
        pq.write_table(
            pa.table(list(map(list, zip(*rows, strict=True))), names),
            folder / f"images-{Path(path).stem}.parquet",
            compression="zstd",
        )


def with_pandas(paths: list[str], home: str, images: int, turn: str) -> Work:
    import pandas as pd

    def work(folder: Path) -> None:
        for path in paths:
            with Path(path).open(encoding="utf-8") as file:
                lines = [json.loads(line) for line in file]
            labels, rows = _normalized(pd, lines)
            labels.to_parquet(folder / f"labels-{Path(path).stem}.parquet", compression="zstd", index=False)
            rows.to_parquet(folder / f"images-{Path(path).stem}.parquet", compression="zstd", index=False)

    return Work(home, turn, work)


def with_awswrangler(paths: list[str], home: str, images: int, turn: str) -> Work:
    import awswrangler as wr
    import pandas as pd

    def work(folder: Path) -> None:
        for path in paths:
            name = Path(path).stem
            frame = wr.s3.read_json(f"s3://{WORK}/bench/results/{images}/{name}.jsonl", lines=True)
            labels, rows = _normalized(pd, frame.to_dict("records"))
            for table, of in ((labels, "labels"), (rows, "images")):
                uri = f"s3://{WORK}/bench/{turn}/{of}-{name}.parquet"
                wr.s3.to_parquet(table, uri, compression="zstd", index=False)

    def fetch(folder: Path) -> None:
        for path in paths:
            for of in ("labels", "images"):
                name = f"{of}-{Path(path).stem}.parquet"
                wr.s3.download(f"s3://{WORK}/bench/{turn}/{name}", str(folder / name))

    return Work(home, turn, work, fetch)


def _normalized(pd: Any, lines: list[dict[str, Any]]) -> tuple[Any, Any]:
    answer = "detect-moderation-labels"
    labels = pd.json_normalize(
        lines, [answer, "ModerationLabels"], ["source-ref", [answer, "ModerationModelVersion"]]
    )
    labels = labels.rename(
        columns={
            "source-ref": "source_ref",
            "Name": "label",
            "ParentName": "parent_label",
            "TaxonomyLevel": "taxonomy_level",
            "Confidence": "confidence",
            f"{answer}.ModerationModelVersion": "model_version",
        }
    )
    found = pd.json_normalize(lines)
    top = labels.groupby("source_ref")["confidence"].max()
    told = pd.json_normalize(lines, [answer, "ContentTypes"], ["source-ref"])
    kinds: dict[str, Any] = {}
    if len(told):
        kinds = {name: rows.set_index("source-ref")["Confidence"] for name, rows in told.groupby("Name")}
    rows = pd.DataFrame(
        {
            "source_ref": found["source-ref"],
            "label_count": found[f"{answer}.ModerationLabels"].map(len),
            "top_confidence": found["source-ref"].map(top),
            "animated_confidence": found["source-ref"].map(kinds.get("Animated", {})),
            "illustrated_confidence": found["source-ref"].map(kinds.get("Illustrated", {})),
            "model_version": found[f"{answer}.ModerationModelVersion"],
        }
    )
    return labels, rows


def _plain(row: Any) -> list[float]:
    return [float(value or 0) for value in row]
