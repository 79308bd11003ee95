"""The local cloud as the one process of a container: python -m localcloud serve | status."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import time

from localcloud import cloud
from localcloud.errors import LocalCloudError
from localcloud.settings import CloudSettings

_LOOK_SECONDS = 5.0

log = logging.getLogger("localcloud")


def serve(settings: CloudSettings) -> int:
    """Start the cloud and stay until it is told to stop, or until one of its servers is gone."""

    def leave(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, leave)
    try:
        cloud.start(settings, log.info)
        while cloud.status(settings).running:
            time.sleep(_LOOK_SECONDS)
    except KeyboardInterrupt:
        return 0
    finally:
        cloud.stop(settings)
    log.error("A server of the local cloud is gone: see %s, then start it again.", settings.logs_dir)
    return 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="localcloud", description=__doc__)
    parser.add_argument("command", choices=("serve", "status"))
    command = parser.parse_args().command
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("botocore").setLevel(logging.WARNING)
    try:
        settings = CloudSettings.from_environment()
        return serve(settings) if command == "serve" else int(not cloud.status(settings).running)
    except LocalCloudError as error:
        log.error(error)  # noqa: TRY400 - the message says it all
        return 1


if __name__ == "__main__":
    sys.exit(main())
