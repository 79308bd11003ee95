"""No test reads or writes the developer's own Airflow, AWS or Modlake settings."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

_HOME = tempfile.mkdtemp(prefix="modlake-tests-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)

for name in [name for name in os.environ if name.startswith(("AIRFLOW_", "AWS_", "MODLAKE_", "PYICEBERG_"))]:
    del os.environ[name]

# Before any test module imports Airflow, which makes its home at import.
os.environ["AIRFLOW_HOME"] = _HOME
os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = f"{_HOME}/no-aws-settings"
