"""The groups of texts are never missed, and few others are named."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from modlake.pipeline.text_groups import GROUPS, TextGroups

TEXTS = st.lists(st.text(max_size=20), max_size=20)


def groups_of(held: TextGroups, texts: list[str]) -> list[set[int]]:
    """Return the groups that each text may be in."""
    groups: list[set[int]] = [set() for _ in texts]
    for group, may_be_of_it in held.groups_of(pa.chunked_array([texts], pa.string())):
        for text, is_of_it in zip(groups, may_be_of_it.to_pylist(), strict=True):
            if is_of_it:
                text.add(group)
    return groups


@given(texts=st.dictionaries(st.integers(0, GROUPS - 1), TEXTS, max_size=5), others=TEXTS)
def test_no_group_is_missed(texts: dict[int, list[str]], others: list[str]) -> None:
    held = TextGroups(sum(map(len, texts.values())))
    for group, own in texts.items():
        held.add(pa.array(own, pa.string()), group)

    for group, own in texts.items():
        assert all(group in told for told in groups_of(held, [*others, *own])[len(others) :])


def test_few_texts_are_taken_for_those_of_another_group() -> None:
    held = TextGroups(20_000)
    names = [f"s3://ugc/uploads/{number:07d}.jpg" for number in range(20_000)]
    held.add(pa.array(names[:10_000]), 0)
    held.add(pa.array(names[10_000:]), 63)

    told = groups_of(held, names)

    assert sum(map(len, told)) < 1.3 * len(names)
    assert groups_of(TextGroups(0), names) == [set()] * len(names)
