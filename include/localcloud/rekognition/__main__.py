"""Run the stand-in: python -m localcloud.rekognition --home=DIR --port=8334 --s3-port=8333 --region=R …"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware

from localcloud import credentials
from localcloud.faults.middleware import AbortableProtocol, FaultyCalls
from localcloud.faults.source import FaultSource
from localcloud.rekognition import behaviour
from localcloud.rekognition.adapters import Adapters
from localcloud.rekognition.app import Api, create_app
from localcloud.rekognition.jobs import JobStore
from localcloud.rekognition.judges import AnswerBookJudge, FirstOf, OpenNsfwJudge
from localcloud.rekognition.objects import ObjectsByCaller
from localcloud.rekognition.operations import Operations
from localcloud.rekognition.quotas import CallRates
from localcloud.rekognition.rehearsal import RehearsedFaults, RekognitionDialect
from localcloud.rekognition.runner import Dependencies, JobRunner
from localcloud.settings import CHECKOUT, HOST, CloudSettings

_SAMPLE_BOOK = CHECKOUT / "include" / "sample_images" / "labels.json"


def build_app(settings: CloudSettings) -> Starlette:
    """The service with everything it needs, on the state under the settings' home."""
    behave = behaviour.load(settings.cloud_dir)
    scratch_dir = settings.cloud_dir / "scratch"
    scratch_dir.mkdir(parents=True, exist_ok=True)

    def secrets() -> dict[str, str]:
        return credentials.read_secrets(settings.credentials_file)

    def books() -> list[Path]:
        return [_SAMPLE_BOOK, *sorted(settings.answers_dir.glob("*.json"))]

    faults = FaultSource(settings.cloud_dir)
    dependencies = Dependencies(
        store=JobStore(settings.cloud_dir / "rekognition.sqlite"),
        objects=ObjectsByCaller(
            settings.seaweedfs_endpoint,
            settings.region,
            secrets,
            behave.image_workers + behave.running_jobs + 40,
        ),
        judges=FirstOf(AnswerBookJudge(books), OpenNsfwJudge()),
        adapters=Adapters(settings.cloud_dir),
        behaviour=behave,
        scratch_dir=scratch_dir,
        hooks=[RehearsedFaults(faults)],
        tokens=faults.tokens,
    )
    runner = JobRunner(dependencies)
    api = Api(Operations(dependencies, runner), CallRates(behave), secrets, settings.region)
    faulty = Middleware(FaultyCalls, source=faults, dialect=RekognitionDialect())
    return create_app(api, runner, [faulty])


def main() -> None:
    parser = argparse.ArgumentParser(prog="localcloud.rekognition", description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--bind-host", default=HOST)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--s3-port", type=int, required=True)
    parser.add_argument("--seaweedfs-port", type=int, required=True)
    parser.add_argument("--s3-fault-proxy", action="store_true")
    parser.add_argument("--region", required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = CloudSettings(
        home=arguments.home,
        s3_port=arguments.s3_port,
        seaweedfs_port=arguments.seaweedfs_port,
        s3_fault_proxy=arguments.s3_fault_proxy,
        rekognition_port=arguments.port,
        region=arguments.region,
    )
    uvicorn.run(
        build_app(settings),
        host=arguments.bind_host,
        port=settings.rekognition_port,
        http=AbortableProtocol,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
    )


if __name__ == "__main__":
    main()
