"""End-to-end encrypted channels for agents, over a relay's durable log.

An agent has one identity and one vault. What it sends is in the vault when ``send`` returns, and goes out when there is a
network; an agent that was away gets what it missed, in order, each message once::

    import asyncio, skytale

    async def main() -> None:
        # SKYTALE_API_URL and SKYTALE_API_KEY: `skytale dev` prints some that work
        async with skytale.Agent.from_env("alice.vault") as agent:
            tasks = await agent.ensure_channel("tasks")
            await tasks.ensure_members(["<another agent's id>"])
            await tasks.send("hello")
            async for message in tasks.messages():
                print(message.author, message.text())
                await message.ack()

    asyncio.run(main())

Awaitables may be cancelled at any time: what was begun was done or not, never in part. ``skytale.sync`` is the same without
``async``.
"""

from __future__ import annotations

import asyncio
import atexit
import builtins
import inspect
import json as _json
import os
import weakref
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, TypeVar, cast

from . import _events, _skytale
from ._errors import ChannelLeft, Closed, NoReply, Offline, SendFailed, SkytaleError, Unauthorized, VaultError
from ._events import (
    Connected,
    Disconnected,
    Divergence,
    EntriesLost,
    EntryUnreadable,
    Event,
    Joined,
    Lagged,
    Left,
    MemberAdded,
    MemberNotAdded,
    MemberRemoved,
    OutOfSync,
    Rejoined,
)

__version__: Final = _skytale.__version__
__all__ = [
    "Agent",
    "Channel",
    "ChannelInfo",
    "ChannelLeft",
    "Closed",
    "Connected",
    "Disconnected",
    "Divergence",
    "EntriesLost",
    "EntryUnreadable",
    "Event",
    "Joined",
    "Lagged",
    "Left",
    "MemberAdded",
    "MemberNotAdded",
    "MemberRemoved",
    "Message",
    "Messages",
    "NoReply",
    "Offline",
    "OutOfSync",
    "Problem",
    "Queued",
    "Received",
    "Rejoined",
    "SendFailed",
    "Sent",
    "SkytaleError",
    "Unauthorized",
    "VaultError",
]

JSON_TYPE: Final = "application/json"
TEXT_TYPE: Final = "text/plain; charset=utf-8"
_NOTHING: Final = object()
_E = TypeVar("_E", bound=Event)


def _content(payload: bytes | str | None, json: object, content_type: str | None) -> tuple[bytes, str | None]:
    """A payload in bytes, and what it is."""
    if json is not _NOTHING:
        if payload is not None:
            raise TypeError("give a payload or json=, not both")
        encoded = _json.dumps(json, ensure_ascii=False, separators=(",", ":")).encode()
        return encoded, content_type or JSON_TYPE
    if isinstance(payload, str):
        return payload.encode(), content_type or TEXT_TYPE
    if payload is None:
        raise TypeError("give a payload (bytes or str) or json=")
    return bytes(payload), content_type


class _Content:
    """What a message holds, read in a convenient way."""

    payload: bytes

    def text(self) -> str:
        """The payload as text."""
        return self.payload.decode()

    def json(self) -> Any:
        """The payload as JSON."""
        return _json.loads(self.payload)


@dataclass(frozen=True)
class Message(_Content):
    """A message of the history."""

    id: str
    author: str
    offset: int
    sent_ms: int
    time_ms: int
    payload: bytes
    reply_to: str | None
    content_type: str | None
    own: bool


class Received(_Content):
    """A message of another agent that was not acknowledged yet."""

    __slots__ = ("_native", "payload")

    def __init__(self, native: _skytale.Message) -> None:
        self._native = native
        self.payload = native.payload

    def __repr__(self) -> str:
        return f"<skytale.Received {self.offset} from {self.author[:16]}, {len(self.payload)} bytes>"

    @property
    def id(self) -> str:
        """Its id, made by its author: what an answer names as ``reply_to``."""
        return self._native.id

    @property
    def channel_id(self) -> str:
        """The channel that it came in."""
        return self._native.channel

    @property
    def author(self) -> str:
        """Who sent it, proven by its signature."""
        return self._native.author

    @property
    def offset(self) -> int:
        """Where it is in the channel."""
        return self._native.offset

    @property
    def sent_ms(self) -> int:
        """When its author sent it, unix milliseconds by the author's clock."""
        return self._native.sent_ms

    @property
    def time_ms(self) -> int:
        """When the log accepted it, unix milliseconds by the relay node's clock."""
        return self._native.time_ms

    @property
    def reply_to(self) -> str | None:
        """The id of the message that it answers."""
        return self._native.reply_to

    @property
    def content_type(self) -> str | None:
        """The media type of the payload, where its author named one."""
        return self._native.content_type

    async def ack(self) -> None:
        """This program has dealt with the message and all before it in its channel: they do not come again."""
        await self._native.ack()

    async def reply(
        self,
        payload: bytes | str | None = None,
        *,
        json: object = _NOTHING,
        content_type: str | None = None,
        key: str | None = None,
    ) -> Sent:
        """Answers the message and acknowledges it, in one transaction: after a crash both are done, or neither."""
        content, content_type = _content(payload, json, content_type)
        return Sent(await self._native.reply(content, content_type, key))


class Sent:
    """Something that is in the outbox, durably. Dropping it takes nothing back, and neither does a restart."""

    __slots__ = ("_native",)

    def __init__(self, native: _skytale.Sent) -> None:
        self._native = native

    def __repr__(self) -> str:
        return f"<skytale.Sent {self.id}>"

    @property
    def id(self) -> str:
        """Its id, kept across retries and restarts."""
        return self._native.id

    async def delivered(self) -> int | None:
        """Waits until it is in the log, and gives its offset; ``None`` for a change that needed no entry."""
        return await self._native.delivered()


@dataclass(frozen=True)
class ChannelInfo:
    """What the vault knows of a channel."""

    id: str
    label: str
    state: str
    standing: str
    cursor: int
    epoch: int
    unacked: int
    outbox: int
    failed: int


@dataclass(frozen=True)
class Queued:
    """Something that waits in the outbox."""

    id: str
    kind: str
    since_ms: int
    bytes: int
    attempts: int
    payload: builtins.bytes | None
    """Of a message."""
    reply_to: str | None
    content_type: str | None


@dataclass(frozen=True)
class Problem:
    """Something that a person should know."""

    channel: str | None
    code: str
    what: str


def _info(value: dict[str, Any]) -> ChannelInfo:
    state, standing = str(value["state"]).lower(), value["standing"]
    if isinstance(standing, dict):
        standing = next(iter(cast("dict[str, Any]", standing)))
    return ChannelInfo(
        id=value["id"],
        label=value["label"],
        state=state,
        standing=str(standing),
        cursor=value["cursor"],
        epoch=value["epoch"],
        unacked=value["unacked"],
        outbox=value["outbox"],
        failed=value["failed"],
    )


class Messages:
    """Messages as they come, for ``async for``. A wait that is cancelled loses nothing: the next one goes on where it was."""

    __slots__ = ("_native", "_read", "_until", "_waits")

    def __init__(self, native: _skytale.Messages, until: asyncio.Event | None) -> None:
        self._native = native
        # The native half gives several at once.
        self._read: deque[_skytale.Message] = deque()
        self._until = until
        self._waits = False

    def __aiter__(self) -> Messages:
        return self

    async def __anext__(self) -> Received:
        if self._waits:
            raise RuntimeError("another task waits for the next message already: give each its own `messages()`")
        if self._until is not None and self._until.is_set():
            raise StopAsyncIteration
        if not self._read:
            self._waits = True
            try:
                messages = await self._next()
            except ChannelLeft:
                messages = None
            finally:
                self._waits = False
            if messages is None:
                raise StopAsyncIteration
            # They are here: nothing is awaited between this and the caller.
            self._native.taken()
            self._read.extend(messages)
        return Received(self._read.popleft())

    async def _next(self) -> list[_skytale.Message] | None:
        if self._until is None:
            return await self._native.next()
        coming = asyncio.ensure_future(self._native.next())
        stop = asyncio.ensure_future(self._until.wait())
        try:
            await asyncio.wait((coming, stop), return_when=asyncio.FIRST_COMPLETED)
            return coming.result() if coming.done() else None
        finally:
            coming.cancel()
            stop.cancel()


class Channel:
    """A channel, as one of its members has it."""

    __slots__ = ("_native",)

    def __init__(self, native: _skytale.Channel) -> None:
        self._native = native

    def __repr__(self) -> str:
        return f"<skytale.Channel {self.id}>"

    async def __aenter__(self) -> Channel:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing: a channel stays what it is. It is here so that a channel reads like other things that are used for a while."""

    @property
    def id(self) -> str:
        """Its id, the same for all members."""
        return self._native.id

    async def send(
        self,
        payload: bytes | str | None = None,
        *,
        json: object = _NOTHING,
        content_type: str | None = None,
        key: str | None = None,
        reply_to: str | None = None,
        wait: bool = False,
    ) -> Sent:
        """Sends a message. It is in the outbox, durably, when this returns; it goes out in the order of the calls.

        Args:
            payload: Bytes, or text, which is sent as UTF-8.
            json: A value, which is sent as JSON.
            content_type: The media type of the payload; of text and JSON it is known.
            key: An id of yours: the same key sent again is the same message, also after a restart.
            reply_to: The id of the message that this one answers. See also ``Received.reply``.
            wait: Wait until there is room where the outbox is full, instead of raising.
        """
        content, content_type = _content(payload, json, content_type)
        return Sent(await self._native.send(content, content_type, key, reply_to, wait))

    async def request(
        self,
        payload: bytes | str | None = None,
        *,
        json: object = _NOTHING,
        content_type: str | None = None,
        key: str | None = None,
        timeout: float | None = None,
    ) -> Received:
        """Sends a message and waits for the first one that answers it, as ``Received.reply`` does.

        Raises ``NoReply`` after ``timeout`` seconds, which is a ``TimeoutError`` and says whether the request was delivered. With
        a ``key`` the same call goes on waiting, also after a restart: it is sent once, and an answer that came meanwhile is given
        at once.

        This acknowledges nothing: ``messages`` gives the answer in its place, too, and whoever reads them acknowledges it. A
        program that reads no messages calls ``ack`` on the answer, which acknowledges all before it as well.
        """
        content, content_type = _content(payload, json, content_type)
        return Received(await self._native.request(content, timeout, content_type, key))

    def messages(self, *, until: asyncio.Event | None = None) -> Messages:
        """Messages of other agents that were not acknowledged, oldest first, then new ones as they come.

        Ends when this agent is in the channel no longer, or when ``until`` is set. With 10,000 messages that were not
        acknowledged (``unacknowledged_max``) the channel pauses, until fewer than half as many are left.
        """
        return Messages(self._native.messages(), until)

    async def ack(self, offset: int) -> None:
        """This program has dealt with all messages up to and with an offset."""
        await self._native.ack(offset)

    async def history(self, after: int = 0, limit: int = 100) -> list[Message]:
        """Messages after an offset, own ones too, oldest first."""
        return [Message(*row) for row in await self._native.history(after, limit)]

    async def add(self, agents: Iterable[str]) -> Sent:
        """Adds agents, all of them or none. Needs a session; see ``ensure_members`` for one that waits."""
        return Sent(await self._native.add(list(agents)))

    async def ensure_members(self, agents: Iterable[str]) -> None:
        """Makes agents members before anything that is sent after this: works offline, and members are fine.

        What is sent after this call waits until the additions are in the log, so that those who were added read it. An agent that
        cannot be added within a minute, or refuses, holds back nothing any more: ``MemberNotAdded`` says so.
        """
        await self._native.ensure_members(list(agents))

    async def remove(self, agents: Iterable[str]) -> Sent:
        """Removes agents."""
        return Sent(await self._native.remove(list(agents)))

    async def leave(self) -> Sent:
        """Leaves the channel."""
        return Sent(await self._native.leave())

    async def rotate(self) -> Sent:
        """Replaces this agent's keys in the channel: what was stolen before is of no use after."""
        return Sent(await self._native.rotate())

    async def members(self) -> list[str]:
        """The agents in the channel, this one too."""
        return await self._native.members()

    async def caught_up(self) -> None:
        """Waits until the channel was read to its end."""
        await self._native.caught_up()

    async def relabel(self, label: str) -> None:
        """Gives it another label, which stays in the vault."""
        await self._native.relabel(label)

    async def forget(self) -> None:
        """Takes a channel that was left out of the vault, with its history."""
        await self._native.forget()

    async def info(self) -> ChannelInfo:
        """What the vault knows of it."""
        return _info(_json.loads(await self._native.info()))

    async def outbox(self) -> list[Queued]:
        """What waits to be delivered, in the order in which it goes out."""
        return [Queued(*row) for row in await self._native.outbox()]


class _Opening:
    """An agent that is being opened: await it, or use it as an asynchronous context manager."""

    __slots__ = ("_agent", "_arguments", "_connect")

    def __init__(self, arguments: dict[str, Any], connect: bool) -> None:
        self._arguments = arguments
        self._connect = connect
        self._agent: Agent | None = None

    async def _open(self) -> Agent:
        agent = Agent(await _skytale.open(**self._arguments))
        if self._connect:
            try:
                await agent.connect()
            except BaseException:
                await agent.close(0)
                raise
        return agent

    def __await__(self) -> Generator[Any, None, Agent]:
        return self._open().__await__()

    async def __aenter__(self) -> Agent:
        self._agent = await self._open()
        return self._agent

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._agent is not None:
            await self._agent.close()


class Agent:
    """An agent: one identity, one vault, one session with a relay node at a time."""

    def __init__(self, native: _skytale.Agent) -> None:
        self._native = native
        self._handlers: list[tuple[type[Event], Callable[[Any], object]]] = []
        self._watcher: asyncio.Task[None] | None = None
        _open_agents.add(self)

    def __repr__(self) -> str:
        return f"<skytale.Agent {self.id}>"

    @classmethod
    def open(
        cls,
        vault: str | os.PathLike[str],
        *,
        api_url: str,
        api_key: str,
        passphrase: str | None = None,
        key_file: str | os.PathLike[str] | None = None,
        region: int | None = None,
        unacknowledged_max: int | None = None,
        connect: bool = True,
    ) -> _Opening:
        """Opens a vault, or makes one with a new identity. Where another process of this user has it open, works through that one.

        ``async with Agent.open(...) as agent`` closes it at the end; ``agent = await Agent.open(...)`` leaves that to you.

        Args:
            vault: The vault's file.
            api_url: Where the API is.
            api_key: Your account's key, ``sk_live_...``.
            passphrase: What opens the vault. Without, the key is in ``key_file``, or in ``<vault>.key``, which is made.
            key_file: A file that holds the vault's key.
            region: The region of the fleet that this agent is in or nearest to.
            unacknowledged_max: How many messages that were not acknowledged pause a channel, 10,000 by default.
            connect: Whether to connect at once. Raises ``Unauthorized`` where the key is not taken; without a network the agent
                goes on offline and connects by itself later.
        """
        arguments: dict[str, Any] = {
            "vault": os.fspath(vault),
            "api_url": api_url,
            "api_key": api_key,
            "passphrase": passphrase,
            "key_file": None if key_file is None else os.fspath(key_file),
            "region": region,
            "unacknowledged_max": unacknowledged_max,
        }
        return _Opening(arguments, connect)

    @classmethod
    def from_env(cls, vault: str | os.PathLike[str], *, connect: bool = True) -> _Opening:
        """As ``open``, with ``SKYTALE_API_URL``, ``SKYTALE_API_KEY`` and, where it is set, ``SKYTALE_VAULT_PASSPHRASE``."""
        values: dict[str, str] = {}
        for name in ("SKYTALE_API_URL", "SKYTALE_API_KEY"):
            value = os.environ.get(name)
            if not value:
                raise SkytaleError(
                    "SKY-6002", f"the environment variable {name} is not set", False, "`skytale dev` prints one that works."
                )
            values[name] = value
        return cls.open(
            vault,
            api_url=values["SKYTALE_API_URL"],
            api_key=values["SKYTALE_API_KEY"],
            passphrase=os.environ.get("SKYTALE_VAULT_PASSPHRASE") or None,
            connect=connect,
        )

    @property
    def id(self) -> str:
        """The agent's identity: its public key, 64 hex digits."""
        return self._native.id

    @property
    def is_connected(self) -> bool:
        """Whether there is a session with a relay node now."""
        return self._native.is_connected

    async def connect(self) -> None:
        """Begins to connect. Raises ``Unauthorized`` where the key is not taken; not where there is no network."""
        await self._native.connect()

    async def connected(self) -> None:
        """Waits for a session, or raises why there will be none."""
        await self._native.connected()

    async def caught_up(self) -> None:
        """Waits until all channels were read to their ends."""
        await self._native.caught_up()

    async def flushed(self) -> None:
        """Waits until nothing is left in any outbox."""
        await self._native.flushed()

    async def disconnect(self) -> None:
        """Ends the session. What is sent then waits in the outbox."""
        await self._native.disconnect()

    async def close(self, timeout: float = 5) -> None:
        """Sends what can be sent within ``timeout`` seconds, ends the session, closes the vault."""
        _open_agents.discard(self)
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
        await self._native.close(timeout)

    async def create_channel(self, label: str) -> Channel:
        """Makes a channel with this agent as its only member. The label stays in the vault."""
        return Channel(await self._native.create_channel(label))

    async def ensure_channel(self, label: str) -> Channel:
        """The channel of a label: the one that is there, or a new one. The same after a restart."""
        return Channel(await self._native.ensure_channel(label))

    async def join(self, label: str, timeout: float | None = None) -> Channel:
        """The channel that another agent adds this one to, which gets this label: at once where it has it, as after a restart.

        Raises ``TimeoutError`` after ``timeout`` seconds.
        """
        return Channel(await asyncio.wait_for(_coroutine(self._native.join(label)), timeout))

    async def channel(self, id: str) -> Channel:
        """A channel of the vault, by its id."""
        return Channel(await self._native.channel(id))

    async def channels(self) -> list[ChannelInfo]:
        """All channels of the vault, those that were left too."""
        return [_info(value) for value in _json.loads(await self._native.channels())]

    async def problems(self) -> list[Problem]:
        """What a person should know of each channel: what was lost, what will not be delivered, what the relay did."""
        return [Problem(*row) for row in await self._native.problems()]

    def messages(self, *channels: Channel, until: asyncio.Event | None = None) -> Messages:
        """Messages of several channels as they come; without arguments of all, those that this agent is added to later too."""
        ids = [channel.id for channel in channels] or None
        return Messages(self._native.messages(ids), until)

    async def events(self) -> AsyncIterator[Event]:
        """Events from now on, until the agent is closed."""
        events = self._native.events()
        while (event := await events.next()) is not None:
            yield _events.read(event)

    def on(self, kind: type[_E], handler: Callable[[_E], object]) -> None:
        """Calls a function, or awaits a coroutine function, for each event of a class from now on.

        Call it where the event loop runs. What a handler raises goes to the loop's exception handler.
        """
        self._handlers.append((kind, handler))
        if self._watcher is None:
            # From this call on, not from when the task begins to run.
            self._watcher = asyncio.get_running_loop().create_task(self._watch(self._native.events()))

    async def _watch(self, events: _skytale.Events) -> None:
        while (text := await events.next()) is not None:
            event = _events.read(text)
            for kind, handler in list(self._handlers):
                if not isinstance(event, kind):
                    continue
                try:
                    done = handler(event)
                    if inspect.isawaitable(done):
                        await cast("Awaitable[object]", done)
                except Exception as error:
                    context: dict[str, Any] = {"message": f"a handler of {event.name} failed", "exception": error}
                    asyncio.get_running_loop().call_exception_handler(context)


async def _coroutine(awaitable: Awaitable[_skytale.Channel]) -> _skytale.Channel:
    return await awaitable


_open_agents: weakref.WeakSet[Agent] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """What a program left open is closed with the interpreter, so that no thread of an agent outlives it."""
    for agent in list(_open_agents):
        agent._native.close_now(1)  # pyright: ignore[reportPrivateUsage]
    _skytale.end()
