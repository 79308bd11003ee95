"""How the command line ends when something goes wrong."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from cli.console import err
from localcloud.errors import LocalCloudError
from modlake.exceptions import ModlakeError

INTERRUPTED = 130  # as a shell reports a process that SIGINT has ended


class Commands(TyperGroup):
    """Shows a known error as one message, Ctrl-C as one word; MODLAKE_DEBUG=1 shows where it came from."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (ModlakeError, LocalCloudError) as error:
            if os.environ.get("MODLAKE_DEBUG") == "1":
                raise
            err.print(f"[bold red]Error:[/] {escape(str(error))}")
            raise typer.Exit(1) from error
        except KeyboardInterrupt as interrupt:
            err.print("Interrupted.")
            raise typer.Exit(INTERRUPTED) from interrupt
        except BrokenPipeError as error:
            # The reader, such as `head`, has seen enough; Python would complain once more at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from error
