from __future__ import annotations

from collections import Counter

from modlake.pipeline.taxonomy import known_labels


def test_the_taxonomy_has_ten_twenty_and_twenty_two_labels() -> None:
    assert Counter(label.level for label in known_labels().values()) == {1: 10, 2: 20, 3: 22}


def test_paths_go_from_the_top_to_the_label() -> None:
    smoking = known_labels()["Smoking"]
    assert smoking.path == ("Drugs & Tobacco", "Drugs & Tobacco Paraphernalia & Use", "Smoking")
    assert smoking.parent == "Drugs & Tobacco Paraphernalia & Use"
    assert (known_labels()["Violence"].path, known_labels()["Violence"].parent) == (("Violence",), None)
    for label in known_labels().values():
        assert label.path[-2:-1] == ((label.parent,) if label.parent else ())
