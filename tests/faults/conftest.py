"""One cloud for all scenarios, a day of its own for each, and one day that nothing disturbs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.faults import CONTENTS, JUDGEABLE, DagRun, World, world
from tests.support.faults_oracle import Bill, Lake, expected, jobs_alive_together


def pytest_addoption(parser: pytest.Parser) -> None:
    """What `./modlake soak` asks for; a run of all tests does without."""
    parser.addoption("--soak-minutes", type=float, default=0.0)
    parser.addoption("--soak-report", type=Path)
    parser.addoption("--faults-seed", type=int)
    parser.addoption("--kill-airflow", action="store_true")


@dataclass
class Scene:
    """``undisturbed`` is what the tables hold of a day that ran in peace."""

    world: World
    lake: Lake
    undisturbed: dict[str, list[str]] = field(default_factory=dict)
    _last_day: date = date(2026, 1, 1)

    def new_day(self) -> date:
        """Return a day with the same uploads as every other."""
        self._last_day += timedelta(days=1)
        self.world.upload_day(self._last_day, CONTENTS)
        return self._last_day

    def new_run(self, day: date | None = None, **more: Any) -> DagRun:
        name = f"run-{len(list(self.world.folder.iterdir()))}"
        return DagRun(self.world, day or self.new_day(), name, **more)

    def assert_as_undisturbed(self, day: date) -> None:
        """The tables, row by row but for the run's own names and times; every image paid for once."""
        content = self.lake.content(day)
        for table, rows in self.undisturbed.items():
            assert set(content[table]) ^ set(rows) == set(), table
            assert len(content[table]) == len(rows), table
        assert self.lake.outcomes(day) == expected(day, CONTENTS)
        prefix = f"s3://modlake-ugc/uploads/{day}/"
        bill = Bill.read(self.world.settings)
        assert bill.of_day(day) == {prefix + name: 1 for name in JUDGEABLE}
        assert bill.duplicates() == []
        assert jobs_alive_together(self.world.settings) == []


@pytest.fixture(scope="session")
def peaceful_scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with world(tmp_path_factory.mktemp("faults")) as made:
        made.images_per_manifest = 6
        scene = Scene(made, Lake(made.calm))
        day = scene.new_day()
        ended = scene.new_run(day).proceed()
        assert ended.ending == "success", ended.error
        scene.undisturbed = scene.lake.content(day)
        assert len(scene.undisturbed["jobs"]) == 2
        yield scene


@pytest.fixture
def scene(peaceful_scene: Scene) -> Iterator[Scene]:
    yield peaceful_scene
    peaceful_scene.world.behave()
    peaceful_scene.world.heal()
