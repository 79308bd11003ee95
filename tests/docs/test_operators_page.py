"""The DAG of docs/operators.md is one that Airflow accepts."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "operators.md"


def test_the_example_is_a_dag() -> None:
    [example] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(example, str(PAGE), "exec"), names)
    assert names["wait"].upstream_task_ids == {"start"}
