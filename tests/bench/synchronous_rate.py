"""How much of the quota the synchronous engine uses against a local cloud of its own.

    python -m tests.bench.synchronous_rate --minutes 10 --throttled 0.05

prints one line of JSON: the quota, images judged a second and their share of the quota, what was throttled,
lost, and paid twice. Run it on an idle machine: the stand-in needs a core of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from cli.airflow_environment import connections
from cli.seed import s3_client
from localcloud import cloud as local_cloud
from localcloud.faults import plan as faults
from localcloud.settings import CHECKOUT, CloudSettings
from modlake.hooks.object_store import S3ObjectStoreHook
from modlake.hooks.rekognition import RekognitionHook
from modlake.operators.rekognition_synchronous import SynchronousJudge
from modlake.pipeline.landing import land_shard
from modlake.pipeline.plan import Plan
from tests.support.cloud import running_cloud
from tests.support.days import DAY, plan_day
from tests.support.faults_oracle import Bill

IMAGE = CHECKOUT / "include/sample_images/clipart/gambling/die.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="how long the day should take (10)")
    parser.add_argument("--quota", type=int, default=50, help="calls a second of the account (50)")
    parser.add_argument("--throttled", type=float, default=0.05, help="share of calls refused besides (0.05)")
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.minutes, arguments.quota, arguments.throttled)))  # noqa: T201


def measure(minutes: float, quota: int, throttled: float) -> dict[str, Any]:
    """Judge as many images as the quota allows in that time; return what came of it."""
    images = round(minutes * 60 * quota)
    with tempfile.TemporaryDirectory() as home, account(Path(home), quota, throttled) as cloud:
        upload(cloud, images)
        store = S3ObjectStoreHook()
        plan = plan_day(
            store,
            source_uri=f"s3://modlake-ugc/uploads/{DAY}/",
            work_uri="s3://modlake-work/",
            allowed_uris=["s3://modlake-ugc/uploads/"],
        )
        seconds, calls = run(plan, quota)
        landed = [land_shard(store, plan, shard.shard, "1") for shard in plan.shards]
        bill = Bill.read(cloud).of_day(DAY)
    judged = sum(shard.judged for shard in landed)
    return {
        "quota_per_second": quota,
        "images": images,
        "seconds": round(seconds, 1),
        "images_per_second": round(judged / seconds, 2),
        "share_of_quota": round(judged / seconds / quota, 4),
        "throttled": calls["throttled"],
        "calls": calls["calls"],
        "lost": images - judged,
        "paid_twice": sum(count - 1 for count in bill.values()),
    }


@contextmanager
def account(home: Path, quota: int, throttled: float) -> Iterator[CloudSettings]:
    """A local cloud with that quota, which refuses a share of the calls besides."""
    before = os.environ.get("AIRFLOW_CONN_AWS_DEFAULT")
    with running_cloud(home, detect_per_second=quota) as cloud:
        os.environ["AIRFLOW_CONN_AWS_DEFAULT"] = json.dumps(connections(cloud)["aws_default"])
        refusal = {
            "operation": "DetectModerationLabels",
            "error": "ThrottlingException",
            "probability": throttled,
        }
        faults.write(cloud.cloud_dir, {"seed": 1, "calls": [refusal]})
        try:
            yield cloud
        finally:
            del os.environ["AIRFLOW_CONN_AWS_DEFAULT"]
            if before is not None:
                os.environ["AIRFLOW_CONN_AWS_DEFAULT"] = before


def upload(cloud: CloudSettings, images: int) -> None:
    s3, body = s3_client(local_cloud.environment(cloud)), IMAGE.read_bytes()
    for number in range(images):
        s3.put_object(Bucket="modlake-ugc", Key=f"uploads/{DAY}/{number:06d}.png", Body=body)


def run(plan: Plan, quota: int) -> tuple[float, dict[str, int]]:
    """Return the seconds that it took, and the calls."""
    context: Any = {"ti": mock.Mock(id="ti")}
    judge = SynchronousJudge(RekognitionHook(), S3ObjectStoreHook(), plan, context, log, quota)
    began = time.monotonic()
    judge.judge(plan.shards, rate_share=1)
    seconds = time.monotonic() - began
    assert judge.tally is not None
    return seconds, {"calls": judge.tally.calls, "throttled": judge.tally.throttled}


def log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
