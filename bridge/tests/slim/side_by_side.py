"""What a member of a SLIM group gets of the messages that it missed: at a stock node, and at the bridge.

Usage: side_by_side.py [--messages N] [ENDPOINT]

Starts a stock node, and runs the same script there and at ENDPOINT (a bridge; `http://127.0.0.1:7603` without one): a
member is killed, the others talk, it comes back from its persisted state. Each agent is a process of its own, with
nothing but PyPI's slim-bindings. Ends with status 1 if the member missed anything at ENDPOINT."""

import argparse
import asyncio
import json
import os
import secrets
import socket
import sys
import tempfile

AGENT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "agent.py")
SECRET = secrets.token_hex(32)
# How long anything may take, in seconds.
PATIENCE = 120


class Process:
    """An `agent.py`."""

    @classmethod
    async def spawn(cls):
        self = cls()
        pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-B", AGENT, stdin=pipe, stdout=pipe, stderr=null
        )
        self.events, self.changed = [], asyncio.Event()
        self.reading = asyncio.create_task(self.read())
        return self

    async def read(self):
        async for line in self.process.stdout:
            try:
                self.events.append(json.loads(line))
            except ValueError:
                continue
            self.changed.set()

    def count(self, event):
        return sum(one["event"] == event for one in self.events)

    def texts(self, prefix):
        texts = (one["payload"] for one in self.events if one["event"] == "message")
        return [text for text in texts if text.startswith(prefix)]

    async def until(self, what, condition):
        async with asyncio.timeout(PATIENCE):
            while not condition():
                failed = [one for one in self.events if one["event"] == "error"]
                if failed:
                    raise RuntimeError(f"{what}: {failed[0]}")
                self.changed.clear()
                await self.changed.wait()

    async def done(self, event, **command):
        count = self.count(event) + 1
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        await self.until(event, lambda: self.count(event) >= count)

    async def kill(self):
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self.reading


async def started(processes, endpoint, name, folder):
    agent = await Process.spawn()
    processes.append(agent)
    state = os.path.join(folder, name)
    await agent.done("started", do="start", endpoint=endpoint, own=f"side/by/{name}", secret=SECRET, state=state)
    return agent


async def missed(endpoint, messages, folder):
    """How many of the messages that it missed a member gets, in order."""
    processes = []
    # No names of an earlier run.
    names = [f"{name}-{secrets.token_hex(4)}" for name in ("moderator", "alice", "bob", "room")]
    try:
        moderator = await started(processes, endpoint, names[0], folder)
        members = []
        for name in names[1:3]:
            member = await started(processes, endpoint, name, folder)
            await member.done("listening", do="listen")
            members.append(member)
        await moderator.done("created", do="create", to=f"side/by/{names[3]}")
        for name, member in zip(names[1:3], members):
            await moderator.done("invited", do="invite", who=f"side/by/{name}")
            await member.until("session", lambda member=member: member.count("session"))
        alice, bob = members
        await moderator.done("sent", do="send", count=1, text="before-")
        await alice.until("a message", lambda: alice.texts("before-"))
        await alice.kill()
        await moderator.done("sent", do="send", count=messages, text="missed-")
        await bob.until("the messages", lambda: len(bob.texts("missed-")) == messages)
        alice = await started(processes, endpoint, names[1], folder)
        await alice.done("restored", do="restore")
        # Her session is back when she hears what is said now.
        for number in range(PATIENCE * 5):
            await moderator.done("sent", do="send", first=number, count=1, text="live-")
            await asyncio.sleep(0.2)
            if alice.texts("live-"):
                break
        await alice.until("a live message", lambda: alice.texts("live-"))
        expected = [f"missed-{number}" for number in range(messages)]
        got = alice.texts("missed-")
        return len(got) if got == expected[: len(got)] else 0
    finally:
        for process in processes:
            await process.kill()


def free_address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return "127.0.0.1:%d" % free.getsockname()[1]


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("endpoint", nargs="?", default="http://127.0.0.1:7603")
    parser.add_argument("--messages", type=int, default=100)
    arguments = parser.parse_args()
    messages = arguments.messages
    with tempfile.TemporaryDirectory() as folder:
        node, address = await Process.spawn(), free_address()
        try:
            await node.done("serving", do="node", endpoint=address)
            lost = await missed(f"http://{address}", messages, os.path.join(folder, "node"))
        finally:
            await node.kill()
        print(f"stock node: {lost} of {messages} messages that a member missed", flush=True)
        got = await missed(arguments.endpoint, messages, os.path.join(folder, "bridge"))
        print(f"bridge: {got} of {messages} messages that a member missed", flush=True)
    sys.exit(got != messages)


asyncio.run(main())
