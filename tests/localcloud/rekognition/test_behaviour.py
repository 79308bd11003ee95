from __future__ import annotations

import re
import tomllib
from dataclasses import asdict
from pathlib import Path

import pytest

from localcloud.errors import LocalCloudError
from localcloud.rekognition import behaviour
from localcloud.rekognition.adapters import AdapterNotReadyError, Adapters, UnknownAdapterError
from localcloud.rekognition.behaviour import Behaviour
from localcloud.rekognition.protocol import ApiError
from localcloud.rekognition.quotas import CallRates


def test_the_template_documents_every_setting_with_its_default(tmp_path: Path) -> None:
    behaviour.write_template(tmp_path)
    path = tmp_path / behaviour.FILE_NAME
    assert behaviour.load(tmp_path, {}) == Behaviour()
    uncommented = re.sub(r"^# (\w+ = )", r"\1", path.read_text(), flags=re.MULTILINE)
    defaults = asdict(Behaviour())
    expected = defaults | {"kms_keys": list(defaults["kms_keys"])}
    assert tomllib.loads(uncommented) == expected

    path.write_text("job_seconds = 2\n")
    behaviour.write_template(tmp_path)
    assert behaviour.load(tmp_path, {}).job_seconds == 2.0


def test_the_environment_wins(tmp_path: Path) -> None:
    (tmp_path / behaviour.FILE_NAME).write_text('image_workers = 3\nconcurrent_jobs = 7\nkms_keys = ["a"]\n')
    env = {"MODLAKE_REKOGNITION_IMAGE_WORKERS": "9", "MODLAKE_REKOGNITION_PORT": "8334"}
    loaded = behaviour.load(tmp_path, env)
    assert loaded == Behaviour(image_workers=9, concurrent_jobs=7, kms_keys=("a",))
    assert behaviour.load(tmp_path, {"MODLAKE_REKOGNITION_KMS_KEYS": "b,c"}).kms_keys == ("b", "c")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("job_second = 1", "unknown setting 'job_second': use one of"),
        ("image_workers = 0", "image_workers is 0: use 1 or more"),
        ('job_seconds = "soon"', "job_seconds is 'soon': give it a float"),
        ('line_number_key = "line"', "use line-numer or line-number"),
        ("job_seconds", "is not valid TOML"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / behaviour.FILE_NAME).write_text(text)
    with pytest.raises(LocalCloudError, match=told):
        behaviour.load(tmp_path, {})


def test_call_rates_are_counted_by_operation() -> None:
    rates = CallRates(Behaviour(start_per_second=2, get_per_second=1))
    rates.take("StartMediaAnalysisJob")
    rates.take("StartMediaAnalysisJob")
    with pytest.raises(ApiError) as caught:
        rates.take("StartMediaAnalysisJob")
    assert (caught.value.code, caught.value.status) == ("ProvisionedThroughputExceededException", 400)
    rates.take("GetMediaAnalysisJob")


class TestAdapters:
    def test_statuses(self, tmp_path: Path) -> None:
        adapters = Adapters(tmp_path)
        assert adapters.effective(None) is None
        with pytest.raises(UnknownAdapterError, match="a1 does not exist"):
            adapters.effective("a1")
        (tmp_path / "adapters.json").write_text(
            '{"a1": "ACTIVE", "a2": "DEPRECATED", "a3": "EXPIRED", "a4": "TRAINING_FAILED"}'
        )
        assert [adapters.effective(arn) for arn in ("a1", "a2", "a3")] == ["a1", "a2", None]
        with pytest.raises(AdapterNotReadyError, match="TRAINING_FAILED"):
            adapters.effective("a4")

    def test_a_broken_file_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "adapters.json").write_text("[]")
        with pytest.raises(LocalCloudError, match=r"adapters\.json must be"):
            Adapters(tmp_path).effective("a1")
