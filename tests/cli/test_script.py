"""The shell script ./modlake: set-up of .venv on first use, with stand-ins for uv and Python."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "modlake"
UTILITIES = ("cat", "chmod", "cmp", "dirname", "grep", "ln", "mkdir", "readlink", "rm", "sh", "sleep", "tail")

VENV_PYTHON = r"""#!/bin/sh
printf 'path %s\n' "$PYTHONPATH"
for argument in "$@"; do printf 'argument %s\n' "$argument"; done
"""

# Makes the virtual environment it is asked for; `pip` fails or takes its time as the test says.
FAKE_TOOL = r"""#!/bin/sh
printf '%s\n' "$*" >>"$CALLS"
case "$1 $2" in
"-c import sys"*) exit "${FAKE_PYTHON_MISFIT:-0}" ;;
"-c import ensurepip"*) exit "${FAKE_NO_VENV_MODULE:-0}" ;;
"-m venv" | "venv "*)
    for directory in "$@"; do :; done
    mkdir -p "$directory/bin"
    cat >"$directory/bin/python" <<'PYTHON'
#!/bin/sh
if [ "$1 $2" = "-m pip" ]; then printf '%s\n' "$*" >>"$CALLS"; exit 0; fi
VENV_PYTHON
PYTHON
    chmod +x "$directory/bin/python"
    ;;
"pip "*)
    sleep "${FAKE_INSTALL_SECONDS:-0}"
    if [ -n "${FAKE_INSTALL_FAILS:-}" ]; then echo "no route to the index"; exit 2; fi
    ;;
esac
""".replace("VENV_PYTHON\n", VENV_PYTHON.removeprefix("#!/bin/sh\n"))


@dataclass
class Checkout:
    """A directory with the script and a PATH on which only the given tools are."""

    root: Path
    programs: Path
    environment: dict[str, str] = field(default_factory=dict)

    def install(self, name: str) -> None:
        tool = self.programs / name
        tool.write_text(FAKE_TOOL)
        tool.chmod(0o755)

    def start(self, *arguments: str, script: Path | None = None, **variables: str) -> subprocess.Popen[str]:
        environment = {"PATH": str(self.programs), "CALLS": str(self.root / "calls"), **variables}
        return subprocess.Popen(
            ["/bin/sh", str(script or self.root / "modlake"), *arguments],
            cwd="/",
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(
        self, *arguments: str, script: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, script=script, **variables)
        output, errors = process.communicate(timeout=30)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def calls(self) -> list[str]:
        path = self.root / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    root, programs = tmp_path / "a check out", tmp_path / "bin"
    root.mkdir()
    programs.mkdir()
    for name in UTILITIES:
        found = shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(found)
    shutil.copy(SCRIPT, root / "modlake")
    (root / "requirements.txt").write_text("one==1\ntwo==2\n")
    return Checkout(root, programs)


@pytest.mark.parametrize("shell", [shell for shell in ("dash", "bash", "sh") if shutil.which(shell)])
def test_is_valid_in_every_shell(shell: str) -> None:
    subprocess.run([shell, "-n", str(SCRIPT)], check=True)


def test_is_executable() -> None:
    assert os.access(SCRIPT, os.X_OK)


def test_first_use_installs_with_uv_and_runs_the_command(checkout: Checkout) -> None:
    checkout.install("uv")

    ended = checkout.run("query", "SELECT 1, 'two words'")

    assert ended.returncode == 0, ended.stderr
    assert "Installing 2 packages into .venv with uv" in ended.stderr
    assert ended.stdout.splitlines() == [
        f"path {checkout.root}/plugins:{checkout.root}/include",
        *(f"argument {text}" for text in ("-P", "-m", "cli", "query", "SELECT 1, 'two words'")),
    ]


def test_second_use_installs_nothing(checkout: Checkout) -> None:
    checkout.install("uv")
    checkout.run("status")
    calls = checkout.calls()

    ended = checkout.run("status")

    assert ended.returncode == 0
    assert ended.stderr == ""
    assert checkout.calls() == calls


def test_changed_lock_is_installed_anew(checkout: Checkout) -> None:
    checkout.install("uv")
    checkout.run("status")
    (checkout.root / "requirements.txt").write_text("one==1\ntwo==3\n")

    assert "Installing" in checkout.run("status").stderr
    assert checkout.run("status").stderr == ""


def test_moved_checkout_is_set_up_anew(checkout: Checkout, tmp_path: Path) -> None:
    checkout.install("uv")
    checkout.run("status")
    checkout.root = checkout.root.rename(tmp_path / "moved")

    assert "Installing" in checkout.run("status").stderr


def test_failed_set_up_shows_the_log_and_is_begun_again(checkout: Checkout) -> None:
    checkout.install("uv")

    failed = checkout.run("status", FAKE_INSTALL_FAILS="yes")

    assert failed.returncode == 1
    assert "no route to the index" in failed.stderr
    assert "run the command again" in failed.stderr
    assert failed.stdout == ""
    assert not (checkout.root / ".venv.lock").is_symlink()
    assert checkout.run("status").returncode == 0


def test_without_uv_pip_installs_the_lock_without_resolving(checkout: Checkout) -> None:
    checkout.install("python3")

    ended = checkout.run("status")

    assert ended.returncode == 0, ended.stderr
    (pip,) = [call for call in checkout.calls() if call.startswith("-m pip")]
    assert "--no-deps" in pip.split()
    assert pip.endswith(f"--requirement {checkout.root}/requirements.txt")


def test_missing_python_names_what_to_install(checkout: Checkout) -> None:
    ended = checkout.run("demo")

    assert ended.returncode == 1
    assert "Python 3.11, 3.12 or 3.13 is needed" in ended.stderr
    assert "apt-get install" in ended.stderr


def test_too_old_python_is_named(checkout: Checkout) -> None:
    checkout.install("python3")

    ended = checkout.run("demo", FAKE_PYTHON_MISFIT="1")

    assert ended.returncode == 1
    assert "these do not fit: python3;" in ended.stderr


def test_python_without_venv_module_names_the_debian_package(checkout: Checkout) -> None:
    checkout.install("python3")

    ended = checkout.run("demo", FAKE_NO_VENV_MODULE="1")

    assert ended.returncode == 1
    assert "apt-get install python3-venv" in ended.stderr
    assert not (checkout.root / ".venv.lock").is_symlink()


def test_runs_through_symbolic_links(checkout: Checkout, tmp_path: Path) -> None:
    checkout.install("uv")
    (tmp_path / "first link").symlink_to(checkout.root / "modlake")
    second = tmp_path / "second"
    second.symlink_to("first link")

    ended = checkout.run("status", script=second)

    assert ended.returncode == 0, ended.stderr
    assert f"path {checkout.root}/plugins" in ended.stdout


def test_two_first_uses_install_once(checkout: Checkout) -> None:
    checkout.install("uv")

    both = [checkout.start("status", FAKE_INSTALL_SECONDS="1") for _ in range(2)]

    for process in both:
        process.communicate(timeout=30)
        assert process.returncode == 0
    assert len([call for call in checkout.calls() if call.startswith("pip sync")]) == 1


def test_lock_of_a_dead_process_is_taken_over(checkout: Checkout) -> None:
    checkout.install("uv")
    dead = subprocess.Popen(["true"])
    dead.wait()
    (checkout.root / ".venv.lock").symlink_to(str(dead.pid))

    assert checkout.run("status").returncode == 0
