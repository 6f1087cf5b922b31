"""What README says: installed from the source, two agents, one of them restarted in between."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import skytale._skytale
from conftest import Node

ROOT = Path(__file__).resolve().parents[3]


def four_commands() -> list[list[str]]:
    _, _, after = (ROOT / "README.md").read_text().partition("pip install ./sdk/python\n")
    lines = after.partition("\n```")[0].splitlines()
    return [shlex.split(line) for line in ["pip install ./sdk/python", *lines]]


@contextmanager
def running(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        # With what it started.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_readmes_four_commands_work_with_a_restart_in_between(tmp_path: Path) -> None:
    install, dev, worker, coordinator = four_commands()
    (tmp_path / "sdk").symlink_to(ROOT / "sdk")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    programs = tmp_path / "venv" / "bin"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SKYTALE_", "PYTHON", "PIP_"))}
    kept["PATH"] = f"{programs}:{kept['PATH']}"
    # The library as it was built for these tests. `pip` builds it where this is not set.
    built = {"SKYTALE_PYTHON_NATIVE": skytale._skytale.__file__, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    if sys.version_info >= (3, 11):
        # It needs nothing from an index.
        built["PIP_NO_INDEX"] = "1"
    assert install[0] == "pip"
    subprocess.run([programs / "pip", *install[1:]], cwd=tmp_path, env={**kept, **built}, check=True)
    where = [programs / "python", "-c", "import skytale; print(skytale.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, env=kept, check=True, capture_output=True, text=True).stdout
    assert Path(found).is_relative_to(programs.parent)

    # The binary as it was built for these tests, on ports that are free.
    assert dev[:4] == ["cargo", "run", "--release", "--"]
    with ExitStack() as stack:
        node = stack.enter_context(running([os.environ["TEST_SKYTALE"], *dev[4:], "--any-port"], tmp_path, kept))
        for _ in range(2):
            name, _, value = line(node).removeprefix("export ").partition("=")
            kept[name] = value
        assert {"SKYTALE_API_URL", "SKYTALE_API_KEY"} <= kept.keys()
        first = stack.enter_context(running(worker, tmp_path, kept))
        agent = line(first)
        asks = stack.enter_context(
            running([agent if word == "WORKER-AGENT-ID" else word for word in coordinator], tmp_path, kept)
        )
        assert line(asks) == f"added {agent[:16]}"
        first.kill()
        assert first.wait() == -signal.SIGKILL
        again = stack.enter_context(running(worker, tmp_path, kept))
        assert line(again) == agent
        assert line(asks) == "60 of 60"
        assert asks.wait() == 0


def test_what_dev_points_to_is_a_first_message_by_copy_and_paste(node: Node, tmp_path: Path) -> None:
    printed = subprocess.run([sys.executable, "-m", "skytale"], check=True, capture_output=True, text=True).stdout
    first, second = printed.split("\n\n# ")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    environment = {**node.environment, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "VIRTUAL_ENV": sys.prefix}

    with ExitStack() as stack:
        bob = stack.enter_context(running(["bash", "-ec", first], tmp_path, environment))
        alice = stack.enter_context(running(["bash", "-ec", f"# {second}\n{line(bob)}"], tmp_path, environment))
        assert line(bob) == "hello, Bob"
        assert line(alice) == "hello, Alice"
        assert alice.wait() == 0
