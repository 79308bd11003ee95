"""Runs several `airflow` commands in one process, as starting one takes longer than most of them.

Called as `python -m cli.airflow_commands '["db", "migrate"]' '["pools", "import", "…"]'`.
"""

from __future__ import annotations

import json
import sys


def main() -> None:
    from airflow.cli.cli_parser import get_parser

    parser = get_parser()
    for command in sys.argv[1:]:
        arguments = parser.parse_args(json.loads(command))
        arguments.func(arguments)


if __name__ == "__main__":
    main()
