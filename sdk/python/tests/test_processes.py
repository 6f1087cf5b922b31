"""Programs in processes of their own: killed, forked, interrupted, without an event loop, at the interpreter's end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Node, python, start

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

WORKER = """
import asyncio, os, sys, skytale
async def main():
    async with skytale.Agent.from_env("bob.vault") as agent:
        print(agent.id, flush=True)
        tasks = await agent.join("tasks")
        async for message in tasks.messages():
            n = message.json()["n"]
            if len(sys.argv) > 1 and n == int(sys.argv[1]):
                os.kill(os.getpid(), 9)
            await message.reply(json={"n": n})
asyncio.run(main())
"""

ASK = """
import asyncio, json, sys, skytale
async def main():
    count = int(sys.argv[2])
    async with skytale.Agent.from_env("alice.vault") as agent:
        tasks = await agent.ensure_channel("tasks")
        if sys.argv[1] not in await tasks.members():
            await (await tasks.add([sys.argv[1]])).delivered()
        sent = {(await tasks.send(json={"n": n}, key=str(n))).id: n for n in range(count)}
        answers = []
        async for message in tasks.messages():
            assert sent[message.reply_to] == message.json()["n"]
            answers.append(message.json()["n"])
            await message.ack()
            if len(set(answers)) == count:
                break
        print(json.dumps(answers), flush=True)
asyncio.run(main())
"""


def test_a_worker_killed_in_a_handler_answers_everything_once(node: Node, tmp_path: Path) -> None:
    worker = python(node, tmp_path, WORKER, "20")
    assert worker.stdout is not None
    bob = worker.stdout.readline().strip()
    asker = python(node, tmp_path, ASK, bob, "60")
    assert worker.wait() == -signal.SIGKILL
    worker.communicate()
    # It comes back and is killed again, and then stays.
    second = python(node, tmp_path, WORKER, "41")
    assert second.wait() == -signal.SIGKILL
    second.communicate()
    third = python(node, tmp_path, WORKER)
    answers, errors = asker.communicate()
    third.kill()
    third.communicate()
    assert asker.returncode == 0, errors
    assert json.loads(answers) == list(range(60))


def test_the_examples_do_what_they_say(node: Node, tmp_path: Path) -> None:
    names = ("one", "two")
    workers = [
        subprocess.Popen(
            [sys.executable, EXAMPLES / "worker.py", name],
            cwd=tmp_path,
            env=node.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    ids = [worker.stdout.readline().strip() for worker in workers]  # type: ignore[union-attr]
    for _ in range(2):
        coordinator = subprocess.run(
            [sys.executable, EXAMPLES / "coordinator.py", "20", *ids],
            cwd=tmp_path,
            env=node.environment,
            capture_output=True,
            text=True,
        )
        if coordinator.returncode == 0:
            break
    for worker in workers:
        worker.send_signal(signal.SIGINT)
    assert [worker.wait() for worker in workers] == [0, 0]
    assert "20 of 20" in coordinator.stdout, coordinator.stderr
    for worker in workers:
        worker.communicate()


def test_nothing_is_said_at_the_interpreters_end(node: Node, tmp_path: Path) -> None:
    left_open = """
import asyncio, skytale
async def main():
    agent = await skytale.Agent.from_env("left.vault")
    channel = await agent.ensure_channel("alone")
    await channel.send("hello")
    agent.on(skytale.Connected, print)
    waiting = asyncio.ensure_future(anext(channel.messages()))
    await asyncio.sleep(0)
    waiting.cancel()
    return agent
agent = asyncio.run(main())
"""
    process = python(node, tmp_path, left_open)
    said = process.communicate()
    assert (process.returncode, said) == (0, ("", ""))


def test_a_forked_process_is_refused(node: Node, tmp_path: Path) -> None:
    forked = """
import asyncio, os, skytale
async def use():
    async with skytale.Agent.from_env("a.vault", connect=False):
        pass
if os.fork() == 0:
    try:
        asyncio.run(use())
    except skytale.SkytaleError as error:
        os._exit(7 if error.code == "SKY-6002" and "spawn" in error.help else 1)
    os._exit(2)
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    process = python(node, tmp_path, forked)
    out, errors = process.communicate()
    assert out.strip() == "7", errors


SYNC = """
import skytale.sync as skytale
with skytale.Agent.from_env("alice.vault") as alice, skytale.Agent.from_env("bob.vault") as bob:
    bob.caught_up()
    with alice.ensure_channel("tasks") as tasks:
        tasks.add([bob.id]).delivered()
        asked = tasks.send(json=[1, 2])
        for message in bob.join("tasks").messages():
            message.reply(str(sum(message.json())))
            break
        answer = next(iter(tasks.messages(timeout=60)))
        assert (answer.text(), answer.reply_to) == ("3", asked.id)
        answer.ack()
        assert [message.text() for message in tasks.messages(timeout=2)] == []
print("done")
"""


def test_the_synchronous_twin_does_the_same(node: Node, tmp_path: Path) -> None:
    process = python(node, tmp_path, SYNC)
    out, errors = process.communicate()
    assert (process.returncode, out, errors) == (0, "done\n", "")


UVLOOP = """
import asyncio, uvloop, skytale
async def main():
    async with skytale.Agent.from_env("a.vault") as alice, skytale.Agent.from_env("b.vault") as bob:
        await bob.caught_up()
        tasks = await alice.ensure_channel("tasks")
        await (await tasks.add([bob.id])).delivered()
        await tasks.send("hello")
        async for message in (await bob.join("tasks")).messages():
            print(message.text())
            break
uvloop.run(main())
"""


def test_it_works_under_uvloop(node: Node, tmp_path: Path) -> None:
    pytest.importorskip("uvloop")
    process = python(node, tmp_path, UVLOOP)
    out, errors = process.communicate()
    assert (process.returncode, out) == (0, "hello\n"), errors


MANY = """
import asyncio, skytale
async def main():
    async with skytale.Agent.from_env("a.vault") as alice, skytale.Agent.from_env("b.vault") as bob:
        await bob.caught_up()
        for n in range(1000):
            channel = await alice.create_channel(str(n))
            await channel.ensure_members([bob.id])
            await channel.send(str(n))
        seen = set()
        async for message in bob.messages():
            seen.add(message.text())
            await message.ack()
            if len(seen) == 1000:
                break
        print(sorted(map(int, seen)) == list(range(1000)))
asyncio.run(main())
"""


def test_a_thousand_channels_in_one_loop(node: Node, tmp_path: Path) -> None:
    process = python(node, tmp_path, MANY)
    out, errors = process.communicate()
    assert (process.returncode, out) == (0, "True\n"), errors


OFFLINE = """
import asyncio, sys, skytale
async def main():
    async with skytale.Agent.from_env("a.vault") as alice:
        tasks = await alice.ensure_channel("tasks")
        sent = await tasks.send("while it is away")
        print(len([queued for queued in await tasks.outbox() if queued.id == sent.id]))
asyncio.run(main())
"""


def test_a_node_that_is_away_is_no_error(tmp_path: Path) -> None:
    process, node = start(tmp_path / "node")
    with process:
        process.kill()
    offline = python(node, tmp_path, OFFLINE)
    out, errors = offline.communicate()
    assert (offline.returncode, out) == (0, "1\n"), errors


THREADS = """
import asyncio, collections, os, pathlib, sys, skytale
def name_of(task):
    try:
        return pathlib.Path(f"/proc/self/task/{task}/comm").read_text().strip()
    except OSError:
        return "ended meanwhile"
def threads():
    return collections.Counter(map(name_of, os.listdir("/proc/self/task")))
async def main():
    # A thread has the name of the one that started it before it has its own.
    for _ in range(6000):
        if threads()[name_of(os.getpid())] == 1:
            break
        await asyncio.sleep(0.01)
    begun = threads()["skytale"]
    agents = [await skytale.Agent.from_env(f"{n}.vault") for n in range(10)]
    for agent in agents:
        await agent.caught_up()
    # Those that open vaults and look up names, which block, end when they have nothing to do.
    for _ in range(120):
        if (now := threads())["skytale"] <= begun:
            break
        await asyncio.sleep(0.5)
    print(len({agent.id for agent in agents}), begun, now["skytale"])
    for agent in agents:
        await agent.close()
asyncio.run(main())
"""


def test_ten_agents_share_one_runtime(node: Node, tmp_path: Path) -> None:
    process = python(node, tmp_path, THREADS)
    out, errors = process.communicate()
    agents, before, after = map(int, out.split())
    assert process.returncode == 0 and agents == 10, errors
    assert 1 <= after <= before <= 4
