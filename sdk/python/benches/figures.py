"""Measures the Python package: catch-up against Rust in the same run, memory of an idle agent, threads of ten agents.

Build both sides with optimisation, install the wheel, and run it (docs/python.md has the commands):

    python sdk/python/benches/figures.py --skytale target/release/skytale --rust target/release/examples/catch_up
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import skytale

PAYLOAD = b"x" * 200
LABEL = "tasks"
KINDS = ("python", "rust")
# An acknowledgement is a transaction of the vault, synced to the disk. The second row leaves most of them out.
EVERY = (1, 100)

READER = """
import asyncio, json, sys, time
import skytale
async def main():
    vault, label, count, every = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    begun, size, read = time.monotonic(), 0, 0
    async with skytale.Agent.from_env(vault) as agent:
        channel = await agent.join(label)
        async for message in channel.messages():
            size += len(message.payload)
            read += 1
            if read % every == 0 or read == count:
                await message.ack()
            if read == count:
                break
        seconds = time.monotonic() - begun
    print(json.dumps({"seconds": seconds, "bytes": size}))
asyncio.run(main())
"""

RSS = """
def rss():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
"""

BARE = RSS + """
print(rss())
"""

IDLE = RSS + """
import asyncio, json, os, sys
import skytale
def threads():
    return sorted(open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task"))
async def main():
    count = int(sys.argv[1])
    agents = [await skytale.Agent.from_env(f"idle-{count}-{n}.vault") for n in range(count)]
    for agent in agents:
        await agent.caught_up()
        await agent.ensure_channel("alone")
        await agent.flushed()
    await asyncio.sleep(2)
    print(json.dumps({"rss": rss(), "threads": threads()}))
    for agent in agents:
        await agent.close()
asyncio.run(main())
"""


@contextmanager
def node(binary: str, folder: Path) -> Generator[dict[str, str], None, None]:
    """A node of its own, and the environment that leads to it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SKYTALE_")}
    command = [binary, "--json", "dev", "--dir", str(folder / "node"), "--any-port"]
    process = subprocess.Popen(command, env=kept, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        said = json.loads(process.stdout.readline())
        yield {**kept, "SKYTALE_API_URL": said["api_url"], "SKYTALE_API_KEY": said["api_key"]}
    finally:
        process.terminate()
        process.communicate()


async def prepare(folder: Path, access: dict[str, str], readers: list[str], count: int) -> None:
    """Agents that were away while another one sent them everything."""
    options: dict[str, Any] = {"api_url": access["SKYTALE_API_URL"], "api_key": access["SKYTALE_API_KEY"]}
    async with skytale.Agent.open(folder / "writer.vault", **options) as writer:
        channel = await writer.ensure_channel(LABEL)
        for name in readers:
            async with skytale.Agent.open(folder / f"{name}.vault", **options) as reader:
                await reader.caught_up()
                await (await channel.add([reader.id])).delivered()
                await reader.join(LABEL)
        for _ in range(count):
            await channel.send(PAYLOAD)
        await writer.flushed()


def run(command: list[str], folder: Path, access: dict[str, str]) -> Any:
    done = subprocess.run(command, cwd=folder, env={**access, "SKYTALE_LOG": "error"}, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--skytale", required=True, type=os.path.abspath, help="the command")
    parser.add_argument("--rust", required=True, type=os.path.abspath, help="the example catch_up of skytale-sdk")
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    count: int = arguments.messages

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with node(arguments.skytale, folder) as access:
            names = [f"{kind}-{every}-{n}" for every in EVERY for n in range(arguments.rounds) for kind in KINDS]
            asyncio.run(prepare(folder, access, names, count))
            print(f"catch-up of {count} messages of {len(PAYLOAD)} bytes; median of {arguments.rounds}")
            taken: dict[tuple[str, int], list[float]] = {}
            for name in names:
                kind, acknowledged, _ = name.split("-")
                program = [sys.executable, "-c", READER] if kind == "python" else [arguments.rust]
                read = run([*program, f"{name}.vault", LABEL, str(count), acknowledged], folder, access)
                assert read["bytes"] == count * len(PAYLOAD), read
                taken.setdefault((kind, int(acknowledged)), []).append(read["seconds"])
            for every in EVERY:
                rates = {kind: count / statistics.median(taken[kind, every]) for kind in KINDS}
                print(f"  acknowledged every {every}:" if every > 1 else "  each acknowledged:")
                for kind in KINDS:
                    seconds = ", ".join(f"{each:.2f} s" for each in taken[kind, every])
                    print(f"    {kind:7} {rates[kind]:8.0f} messages/s   ({seconds})")
                print(f"    Python has {rates['python'] / rates['rust']:.2f} of Rust's rate")

            bare = run([sys.executable, "-c", BARE], folder, access) / 1024
            one, ten = (run([sys.executable, "-c", IDLE, str(agents)], folder, access) for agents in (1, 10))
            print(f"memory: interpreter {bare:.1f} MiB, with an idle agent {one['rss'] / 1024:.1f} MiB")
            print(f"  one agent costs {one['rss'] / 1024 - bare:.1f} MiB, each more {(ten['rss'] - one['rss']) / 1024 / 9:.1f} MiB")
            for agents, said in ((1, one), (10, ten)):
                runtime = said["threads"].count("skytale")
                print(f"threads with {agents} agents: {len(said['threads'])}, of which the runtime's {runtime}")


if __name__ == "__main__":
    main()
