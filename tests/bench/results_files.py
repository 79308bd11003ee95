"""Results of media analysis jobs for the benches, made up, the same for the same shard."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from modlake.pipeline.columns import Column
from modlake.pipeline.taxonomy import known_labels
from tests.support.days import answer_line, label

LABELLED_SHARE = 0.2
_MARK = "\0"
# As many as a shard has images: in a file no image has another's confidences.
_ANSWERS = 10_000


def source_refs(shard: int, images: int) -> pa.Array[pa.StringScalar]:
    """Return names as uploads have them, in key order."""
    dice = random.Random(shard)
    names = sorted(f"{dice.getrandbits(128):032x}" for _ in range(images))
    return pa.array([f"s3://modlake-ugc/uploads/2026-11-21/{shard:05d}/{name}.jpg" for name in names])


def results_body(source_refs: Column) -> bytes:
    """Return the results file that a job would leave for these images: about 250 bytes a line.

    One image of five has one or two labels, each with the labels above it.
    """
    heads, tails = _answers()
    answer = pa.array([number % len(heads) for number in range(len(source_refs))])
    lines = pc.binary_join_element_wise(heads.take(answer), source_refs, tails.take(answer), "")
    whole = pa.ListArray.from_arrays(pa.array([0, len(lines)], pa.int32()), lines)
    body: Column = pc.binary_join(whole, "\n")
    return bytes(body[0].as_buffer())


def write_results(folder: Path, shards: int, images_per_shard: int) -> list[str]:
    """Write results files, unless they are there; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{shard:05d}.jsonl" for shard in range(shards)]
    for shard, path in enumerate(paths):
        if not path.exists():
            path.write_bytes(results_body(source_refs(shard, images_per_shard)))
    return list(map(str, paths))


def _answers() -> tuple[pa.Array[pa.StringScalar], pa.Array[pa.StringScalar]]:
    dice = random.Random(7)
    taxonomy = list(known_labels().values())
    lines = []
    for _ in range(_ANSWERS):
        labels = []
        for _ in range(dice.randint(1, 2) if dice.random() < LABELLED_SHARE else 0):
            path = dice.choice(taxonomy).path
            confidence = round(dice.uniform(50, 100), 8)
            labels += [
                label(name, path[depth - 1] if depth else "", depth + 1, confidence)
                for depth, name in reversed(list(enumerate(path)))
            ]
        kind = dice.choice(["Animated", "Illustrated"])
        types = (
            [{"Confidence": round(dice.uniform(50, 100), 6), "Name": kind}] if dice.random() < 0.05 else []
        )
        lines.append(answer_line(_MARK, labels, ContentTypes=types))
    # JSON escapes the mark.
    halves = [line.split("\\u0000") for line in lines]
    return pa.array([head for head, _ in halves]), pa.array([tail for _, tail in halves])
