"""The nightly DAG as it is, but for manifests of few images: a bench of orchestration judges no millions."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

from modlake.pipeline import plan

# Airflow looks for DAGs in files that name both words.
DAG_FILE = Path(__file__).parents[3] / "dags" / "moderate_images.py"

limits = plan.ManifestLimits(images=int(os.environ["MODLAKE_BENCH_IMAGES_PER_MANIFEST"]))
plan.build_plan.__kwdefaults__["limits"] = limits
runpy.run_path(str(DAG_FILE))
