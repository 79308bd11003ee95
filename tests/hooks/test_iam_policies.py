"""The IAM documents: that they deny by default, and allow what is called and no more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

IAM = Path(__file__).parents[2] / "include" / "iam"
OBJECT_CALLS = {
    "s3:GetObject",
    "s3:GetObjectVersion",
    "s3:GetObjectTagging",
    "s3:GetObjectVersionTagging",
    "s3:PutObject",
    "s3:PutObjectTagging",
    "s3:DeleteObject",
    "s3:DeleteObjectVersion",
    "s3:AbortMultipartUpload",
}


def statements(name: str) -> dict[str, dict[str, Any]]:
    document = json.loads((IAM / name).read_text())
    assert document["Version"] == "2012-10-17"
    return {statement["Sid"]: statement for statement in document["Statement"]}


def test_the_quarantine_bucket_is_closed_to_everybody_else() -> None:
    deny = statements("quarantine-bucket-policy.json")["DenyEverybodyElse"]
    assert (deny["Effect"], deny["Principal"], deny["Action"]) == ("Deny", "*", "s3:*")
    assert deny["Resource"] == ["arn:aws:s3:::QUARANTINE_BUCKET", "arn:aws:s3:::QUARANTINE_BUCKET/*"]
    assert set(deny["Condition"]) == {"ArnNotLike"}
    assert deny["Condition"]["ArnNotLike"]["aws:PrincipalArn"] == [
        "arn:aws:iam::ACCOUNT:role/ACTIONS_ROLE",
        "arn:aws:iam::ACCOUNT:role/QUARANTINE_ADMIN_ROLE",
    ]


@pytest.mark.parametrize(
    ("sid", "condition"),
    [
        ("DenyPresignedUrls", {"StringNotEquals": {"s3:authType": "REST-HEADER"}}),
        ("DenyWithoutTls", {"Bool": {"aws:SecureTransport": "false"}}),
    ],
)
def test_the_quarantine_bucket_gives_out_nothing_by_link_or_in_the_clear(
    sid: str, condition: dict[str, Any]
) -> None:
    deny = statements("quarantine-bucket-policy.json")[sid]
    assert (deny["Effect"], deny["Principal"], deny["Action"]) == ("Deny", "*", "s3:*")
    assert deny["Condition"] == condition


def test_only_the_role_that_acts_is_let_into_quarantine() -> None:
    found = statements("quarantine-bucket-policy.json")
    allowed = [statement for statement in found.values() if statement["Effect"] == "Allow"]
    assert {json.dumps(statement["Principal"]) for statement in allowed} == {
        '{"AWS": "arn:aws:iam::ACCOUNT:role/ACTIONS_ROLE"}'
    }
    assert set(found["AllowActions"]["Action"]) == OBJECT_CALLS
    assert found["AllowListing"]["Action"] == "s3:ListBucket"


def test_the_worker_may_do_what_the_kinds_call() -> None:
    found = statements("modlake-actions-policy.json")
    assert {statement["Effect"] for statement in found.values()} == {"Allow"}
    assert set(found["TagMoveAndRestoreImages"]["Action"]) == OBJECT_CALLS | {"s3:PutObjectVersionTagging"}
    assert found["FindImages"]["Action"] == "s3:ListBucket"
    assert found["WithdrawFromReviewQueue"]["Action"] == "s3:DeleteObject"
    assert found["NotifyByTopic"]["Action"] == "sns:Publish"
    assert found["NotifyByQueue"]["Action"] == "sqs:SendMessage"
    assert not any("*" in action for action in _actions(found))
    assert not any(statement["Resource"] == "*" for statement in found.values())


@pytest.mark.parametrize(
    ("name", "bucket", "objects", "calls"),
    [
        ("uploads", "UGC_BUCKET", "uploads/*", {"s3:ListBucket", "s3:GetObject"}),
        ("work", "WORK_BUCKET", "runs/*", {"s3:ListBucket", "s3:GetObject", "s3:PutObject"}),
    ],
)
def test_rekognition_is_let_in_for_this_account_alone(
    name: str, bucket: str, objects: str, calls: set[str]
) -> None:
    found = statements(f"rekognition-{name}-bucket-policy.json")
    assert _actions(found) == calls
    for statement in found.values():
        assert (statement["Effect"], statement["Principal"]) == (
            "Allow",
            {"Service": "rekognition.amazonaws.com"},
        )
        assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": "ACCOUNT"}}
    assert {statement["Resource"] for statement in found.values()} == {
        f"arn:aws:s3:::{bucket}",
        f"arn:aws:s3:::{bucket}/{objects}",
    }


def _actions(found: dict[str, dict[str, Any]]) -> set[str]:
    given = [statement["Action"] for statement in found.values()]
    return {action for each in given for action in ([each] if isinstance(each, str) else each)}
