"""Policy files: a folder of them on disk or in S3, read and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modlake.exceptions import ModlakeTerminalError
from modlake.pipeline.object_store import ObjectStore
from modlake.pipeline.s3_uri import as_folder_uri, split_s3_uri
from modlake.policy.checks import contradictions, doubts
from modlake.policy.policy import Policy
from modlake.policy.reading import field_name, read_policy
from modlake.policy.yaml_marks import Flaw, UnreadableError

_SUFFIXES = (".yaml", ".yml")
_DEFAULT_MIN_CONFIDENCE = 50.0


@dataclass(frozen=True, slots=True)
class Problem:
    """A flaw of a file; line and column from 1."""

    file: str
    line: int
    column: int
    field: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}: "
        return f"{where}{self.field}: {self.message}" if self.field else f"{where}{self.message}"


class PolicyError(ModlakeTerminalError):
    """Policy files can't be used. Attribute: ``problems``."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class CheckedFiles:
    """What is in some policy files: the policies by file, what is wrong, and what is doubtful."""

    policies: dict[str, Policy]
    errors: tuple[Problem, ...]
    warnings: tuple[Problem, ...]


def check_files(
    files: Mapping[str, bytes], *, min_confidence: float = _DEFAULT_MIN_CONFIDENCE
) -> CheckedFiles:
    """Read policy files, by name, and find all that is wrong with them.

    ``min_confidence`` is what days are judged with; thresholds below it are doubtful.
    """
    policies: dict[str, Policy] = {}
    errors: list[Problem] = []
    warnings: list[Problem] = []
    first: dict[str, str] = {}
    for name, body in files.items():
        try:
            read = read_policy(body)
        except UnreadableError as error:
            errors += [_problem(name, flaw) for flaw in error.flaws]
            continue
        flaws = contradictions(read)
        if (namesake := first.setdefault(read.policy.name, name)) != name:
            message = f"{namesake} has a policy of this name too. Rename one of them."
            flaws.append(Flaw(read.document.mark(("name",)), ("name",), message))
        errors += [_problem(name, flaw) for flaw in flaws]
        warnings += [_problem(name, flaw) for flaw in doubts(read, min_confidence)]
        if not flaws:
            policies[name] = read.policy
    return CheckedFiles(policies, tuple(errors), tuple(warnings))


def load_policies(store: ObjectStore | None, uri: str, tried_uri: str | None = None) -> list[Policy]:
    """Return the policies of a folder, in the order of their files.

    ``uri`` is a folder on disk, or in S3 (``s3://bucket/prefix/``), which ``store`` reads. The policy of the
    file ``tried_uri`` stands in for the one of its name, or is one more.

    Raises PolicyError with every problem of every file; ModlakeTerminalError when there is no file.
    """
    files = read_folder(store, uri)
    if not files:
        raise ModlakeTerminalError(
            f"No policy stands in {uri}: files *.yaml are looked for. Put one there, or name another folder."
        )
    policies = {policy.name: policy for policy in _usable(files)}
    if tried_uri:
        tried = load_policy(store, tried_uri)
        policies[tried.name] = tried
    return list(policies.values())


def load_policy(store: ObjectStore | None, uri: str) -> Policy:
    """Return the policy of one file, on disk or in S3; raises as :func:`load_policies`."""
    return _usable({uri: _read_file(store, uri)})[0]


def read_folder(store: ObjectStore | None, uri: str) -> dict[str, bytes]:
    """Return the bodies of a folder's policy files by path or URI, sorted."""
    if not uri.startswith("s3://"):
        paths = sorted(path for path in _folder(uri).iterdir() if path.suffix in _SUFFIXES)
        return {str(path): path.read_bytes() for path in paths}
    bucket, prefix = split_s3_uri(as_folder_uri(uri))
    objects = [each for page in _need(store, uri).list_objects(bucket, prefix) for each in page]
    wanted = [each for each in objects if each.key.endswith(_SUFFIXES) and "/" not in each.key[len(prefix) :]]
    return {each.source_ref: _need(store, uri).read(each.source_ref) for each in wanted}


def _usable(files: Mapping[str, bytes]) -> list[Policy]:
    checked = check_files(files)
    if checked.errors:
        raise PolicyError(checked.errors)
    return list(checked.policies.values())


def _read_file(store: ObjectStore | None, uri: str) -> bytes:
    if uri.startswith("s3://"):
        return _need(store, uri).read(uri)
    try:
        return Path(uri).read_bytes()
    except OSError as error:
        raise ModlakeTerminalError(
            f"The policy {uri} can't be read: {error.strerror}. Name a file that is there."
        ) from error


def _folder(uri: str) -> Path:
    folder = Path(uri)
    if not folder.is_dir():
        raise ModlakeTerminalError(f"There is no folder {uri} for policies. Name one that is there.")
    return folder


def _need(store: ObjectStore | None, uri: str) -> ObjectStore:
    if store is None:
        raise ModlakeTerminalError(f"{uri} needs an object store. Name a path on disk.")
    return store


def _problem(file: str, flaw: Flaw) -> Problem:
    return Problem(file, flaw.mark.line, flaw.mark.column, field_name(flaw.path), flaw.message)
