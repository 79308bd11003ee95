"""What the commands say while they work: progress on a terminal, plain lines in a pipe."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

NAME_WIDTH = 16

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


class Step:
    """A piece of work: it says how far it is, and leaves in `result` what it ended in."""

    def __init__(self, name: str, progress: Progress | None) -> None:
        self.result = ""
        self._name = name
        self._progress = progress
        self._task = progress.add_task(name, total=None, detail="") if progress else TaskID(0)
        self._said = ""
        self._quarters = 0

    def report(self, text: str) -> None:
        """Says what is being done."""
        if text == self._said:
            return
        self._said = text
        if self._progress:
            self._progress.update(self._task, detail=escape(text))
        else:
            err.print(f"{self._name}: {text}", markup=False)

    def complain(self, text: str) -> None:
        """Says what went wrong, and goes on."""
        err.print(f"[yellow]![/] {self._name}: {escape(text)}")

    def advance(self, done: int, total: int, text: str = "") -> None:
        """Says how much is done, in the given words or in numbers; these come in a pipe once a quarter."""
        if self._progress:
            self._progress.update(self._task, completed=done, total=total)
        if text or self._progress:
            self.report(text or f"{done} of {total}")
        elif total and (quarters := 4 * done // total) > self._quarters:
            self._quarters = quarters
            err.print(f"{self._name}: {done} of {total}")

    def close(self) -> None:
        if self._progress:
            self._progress.remove_task(self._task)


class Steps:
    """Steps that run one after another or side by side, each with its time."""

    def __init__(self) -> None:
        self._progress = _progress() if err.is_terminal else None

    def __enter__(self) -> Steps:
        if self._progress:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress:
            self._progress.stop()

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Shows the step while it runs, then one line with its time and result."""
        started = time.monotonic()
        step = Step(name, self._progress)
        mark, colour = "✗", "red"
        try:
            yield step
            mark, colour = "✓", "green"
        finally:
            step.close()
            seconds = time.monotonic() - started
            err.print(
                f"[{colour}]{mark}[/] {name:<{NAME_WIDTH}} [dim]{seconds:6.1f} s[/]  {escape(step.result)}"
            )


def _progress() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn(f"{{task.description:<{NAME_WIDTH}}}"),
        TimeElapsedColumn(),
        BarColumn(bar_width=20),
        TextColumn("[dim]{task.fields[detail]}"),
        console=err,
        transient=True,
    )
