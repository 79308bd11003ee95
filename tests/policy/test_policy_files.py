"""Policies of strangers, right and wrong: what is said of them, and where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.policy import POLICIES
from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.taxonomy import known_labels
from modlake.policy.policy_files import (
    CheckedFiles,
    PolicyError,
    Problem,
    check_files,
    load_policies,
    load_policy,
    read_folder,
)
from modlake.policy.schema import policy_schema
from tests.support.memory_store import MemoryObjectStore

EXAMPLES = Path(__file__).parent / "examples"
RULE = "rules: [{name: a, verdict: block, when: {label: Violence}}]"


def examples(pattern: str) -> list[str]:
    return sorted(path.name for path in EXAMPLES.glob(pattern))


def check_example(name: str) -> CheckedFiles:
    return check_files({name: (EXAMPLES / name).read_bytes()})


def expected(name: str) -> list[tuple[int, str, str]]:
    """The line, field and words that an example says of itself."""
    lines = (EXAMPLES / name).read_text(encoding="utf-8").splitlines()
    told = [
        line.removeprefix("# expect: ").split(" | ", 2) for line in lines if line.startswith("# expect: ")
    ]
    parted = [parts if len(parts) == 3 else [parts[0], "", parts[-1].removeprefix("| ")] for parts in told]
    return [(int(line), field.strip(), words) for line, field, words in parted]


def assert_told(problems: tuple[Problem, ...], name: str) -> None:
    told = [(problem.line, problem.field, problem.message) for problem in problems]
    wanted = expected(name)
    assert [each[:2] for each in told] == sorted(each[:2] for each in wanted)
    for line, field, words in wanted:
        (message,) = [each[2] for each in told if each[:2] == (line, field)]
        assert words in message


@pytest.mark.parametrize("name", examples("right-*.yaml"))
def test_right_policies_are_taken(name: str) -> None:
    checked = check_example(name)
    assert checked.errors == checked.warnings == ()
    assert list(checked.policies) == [name]


@pytest.mark.parametrize("name", examples("wrong-*.yaml"))
def test_wrong_policies_are_told_line_and_field(name: str) -> None:
    checked = check_example(name)
    assert checked.policies == {}
    assert_told(checked.errors, name)


def test_doubtful_policies_can_be_used() -> None:
    checked = check_example("doubtful.yaml")
    assert list(checked.policies) == ["doubtful.yaml"]
    assert_told(checked.warnings, "doubtful.yaml")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the file is empty"),
        (b"# nothing but a comment\n", "the file is empty"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"a: 1\n---\nb: 2\n", "2:1: there is a second document"),
        (b"a: [1", "this is not YAML"),
        (b"a: *nobody", "undefined alias"),
        (b"&a [*a]", "inside its own anchor"),
        (b"[" * 5_000, "nested too deeply"),
        (b"a: " * 60, "this is not YAML"),
        (b"name: !!python/object/apply:os.system [ls]\n", "the tag !!python/object/apply:os.system"),
        (b"x" * 300_000, "262144 are allowed"),
        (b"name: a\nstatus: live\nrules: []\n", "3:8: rules: it is empty"),
        (b"name: a\nstatus: live\nrules:\n- {name: a, verdict: block, when: }\n", "rules[0].when: nothing"),
        (b"name: a\nstatus: live\nrules:\n- {name: a, verdict: block, when: {}}\n", "the condition is empty"),
    ],
)
def test_what_is_no_policy_at_all(body: bytes, words: str) -> None:
    assert words in "\n".join(map(str, check_files({"it.yaml": body}).errors))


def test_policies_of_one_name_are_refused() -> None:
    body = f"name: a\nstatus: live\n{RULE}".encode()
    checked = check_files({"1.yaml": body, "2.yaml": body})
    assert [str(error).split(".", 2)[:2] for error in checked.errors] == [["2", "yaml:1:7: name: 1"]]


def test_folder_on_disk_and_prefix_in_s3_are_the_same(tmp_path: Path) -> None:
    store = MemoryObjectStore()
    for name in ("a", "b"):
        body = f"name: {name}\nstatus: live\n{RULE}".encode()
        (tmp_path / f"{name}.yaml").write_bytes(body)
        store.write(f"s3://config/policies/{name}.yaml", body)
    (tmp_path / "policy.schema.json").write_text("{}")
    store.write("s3://config/policies/old/c.yaml", b"nonsense")

    from_disk = load_policies(None, str(tmp_path))

    assert [policy.name for policy in from_disk] == ["a", "b"]
    assert load_policies(store, "s3://config/policies") == from_disk
    assert load_policy(store, "s3://config/policies/b.yaml") == from_disk[1]


def test_every_problem_of_every_file_is_raised_at_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text("name: x\n")
    with pytest.raises(PolicyError, match=r"a\.yaml:1:1: status and rules must(.|\n)*b\.yaml:1:1") as caught:
        load_policies(None, str(tmp_path))
    assert len(caught.value.problems) == 2


def test_a_folder_without_policies_is_no_permission_to_pass(tmp_path: Path) -> None:
    with pytest.raises(ModlakeTerminalError, match="No policy stands in"):
        load_policies(None, str(tmp_path))
    with pytest.raises(ModlakeTerminalError, match="no folder"):
        load_policies(None, str(tmp_path / "gone"))


def test_shipped_policies_are_beyond_doubt() -> None:
    checked = check_files(read_folder(None, str(POLICIES)))
    assert checked.errors == checked.warnings == ()
    assert {policy.name: policy.status for policy in checked.policies.values()} == {
        "default": "live",
        "minors": "shadow",
    }


def test_schema_for_editors_is_in_step() -> None:
    shipped = json.loads((POLICIES / "policy.schema.json").read_text(encoding="utf-8"))
    assert shipped == policy_schema(), "./modlake policy schema > include/policies/policy.schema.json"
    assert shipped["$defs"]["label"]["enum"] == list(known_labels())


def test_version_is_of_the_meaning() -> None:
    def version(text: str) -> str:
        (policy,) = check_files({"a": text.encode()}).policies.values()
        return policy.version

    rules = "rules:\n- {name: r, verdict: block, when: {label: [Violence, Alcohol], at_least: 80}}"
    first = version(f"name: a\nstatus: live\n{rules}")
    when = "when: {at_least: 80.0, label: [Alcohol, Violence]}"
    same = f"rules:\n- {{name: r, description: why, {when}, verdict: block}}"
    assert version(f"# comment\nstatus: draft\nname: a\nmatch: first\n{same}") == first
    assert version(f"name: a\nstatus: live\n{rules.replace('80', '81')}") != first
    assert version(f"name: a\nstatus: live\nactions: {{block: [tag]}}\n{rules}") != first
