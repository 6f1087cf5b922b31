"""A real API and relay node for each test session: `skytale dev`, on free ports, in a temporary folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
import skytale

# A shell starts what runs in the background with this signal ignored, and processes that tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass
class Node:
    """Where the API is, and a key of it."""

    api_url: str
    api_key: str

    @property
    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("SKYTALE_")}
        return {**kept, "SKYTALE_API_URL": self.api_url, "SKYTALE_API_KEY": self.api_key}


def start(folder: Path) -> tuple[subprocess.Popen[str], Node]:
    binary = os.environ["TEST_SKYTALE"]
    process = subprocess.Popen(
        [binary, "--json", "dev", "--dir", str(folder), "--any-port"],
        env={key: value for key, value in os.environ.items() if not key.startswith("SKYTALE_")},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    said = json.loads(process.stdout.readline())
    return process, Node(said["api_url"], said["api_key"])


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    process, started = start(tmp_path_factory.mktemp("node"))
    with process:
        yield started
        process.terminate()


Opener = Callable[..., "skytale._Opening"]


@pytest_asyncio.fixture
async def agent(node: Node, tmp_path: Path) -> AsyncIterator[Callable[[str], object]]:
    """Opens an agent by name; all are closed at the end of the test."""
    async with AsyncExitStack() as opened:

        async def opener(name: str, **options: object) -> skytale.Agent:
            opening = skytale.Agent.open(
                tmp_path / f"{name}.vault", api_url=node.api_url, api_key=node.api_key, **options
            )
            return await opened.enter_async_context(opening)

        yield opener


def python(node: Node, folder: Path, code: str, *arguments: str) -> subprocess.Popen[str]:
    """Runs a program in another process, where a warning is an error."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-X", "dev", "-c", code, *arguments],
        cwd=folder,
        env=node.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
