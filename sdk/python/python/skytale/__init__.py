"""End-to-end encrypted channels for agents, over a relay's durable log.

An agent has one identity and one vault. A message is durable in the vault when ``send`` returns, and goes out when there is
a network. An agent that was offline gets the messages that it missed, in order, each one once::

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

Awaitables may be cancelled at any time: a call takes effect completely or not at all. ``skytale.sync`` is the same API
without ``async``.
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
    """Returns a payload in bytes, and its content type."""
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
    """Access to the content of a message."""

    payload: bytes

    def text(self) -> str:
        """Returns the payload as text."""
        return self.payload.decode()

    def json(self) -> Any:
        """Returns the payload as JSON."""
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
    """An unacknowledged message of another agent."""

    __slots__ = ("_native", "payload")

    def __init__(self, native: _skytale.Message) -> None:
        self._native = native
        self.payload = native.payload

    def __repr__(self) -> str:
        return f"<skytale.Received {self.offset} from {self.author[:16]}, {len(self.payload)} bytes>"

    @property
    def id(self) -> str:
        """Its id, chosen by its author: an answer names it as ``reply_to``."""
        return self._native.id

    @property
    def channel_id(self) -> str:
        """The id of its channel."""
        return self._native.channel

    @property
    def author(self) -> str:
        """The sender, proven by its signature."""
        return self._native.author

    @property
    def offset(self) -> int:
        """Its offset in the channel."""
        return self._native.offset

    @property
    def sent_ms(self) -> int:
        """Time at which its author sent it, unix milliseconds by the author's clock."""
        return self._native.sent_ms

    @property
    def time_ms(self) -> int:
        """Time at which the log accepted it, unix milliseconds by the relay node's clock."""
        return self._native.time_ms

    @property
    def reply_to(self) -> str | None:
        """The id of the message that it answers."""
        return self._native.reply_to

    @property
    def content_type(self) -> str | None:
        """The media type of the payload, if its author named one."""
        return self._native.content_type

    async def ack(self) -> None:
        """Acknowledges the message and all earlier ones in its channel: they are not delivered again."""
        await self._native.ack()

    async def reply(
        self,
        payload: bytes | str | None = None,
        *,
        json: object = _NOTHING,
        content_type: str | None = None,
        key: str | None = None,
    ) -> Sent:
        """Answers the message and acknowledges it, in one transaction: after a crash both have taken effect, or neither."""
        content, content_type = _content(payload, json, content_type)
        return Sent(await self._native.reply(content, content_type, key))


class Sent:
    """Handle of a message or change that is durable in the outbox. Neither dropping it nor a restart withdraws it."""

    __slots__ = ("_native",)

    def __init__(self, native: _skytale.Sent) -> None:
        self._native = native

    def __repr__(self) -> str:
        return f"<skytale.Sent {self.id}>"

    @property
    def id(self) -> str:
        """Its id, which stays the same across retries and restarts."""
        return self._native.id

    async def delivered(self) -> int | None:
        """Waits until it is in the log, and returns its offset; ``None`` for a change that needed no entry."""
        return await self._native.delivered()


@dataclass(frozen=True)
class ChannelInfo:
    """State of a channel in the vault."""

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
    """An item in the outbox."""

    id: str
    kind: str
    since_ms: int
    bytes: int
    attempts: int
    payload: builtins.bytes | None
    """The payload of a message."""
    reply_to: str | None
    content_type: str | None


@dataclass(frozen=True)
class Problem:
    """A problem of a channel, or of the agent's own log."""

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
    """Messages as they arrive, for ``async for``. A cancelled wait loses nothing: the next one resumes there."""

    __slots__ = ("_native", "_read", "_until", "_waits")

    def __init__(self, native: _skytale.Messages, until: asyncio.Event | None) -> None:
        self._native = native
        # The native half returns several at once.
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
    """A channel, from the point of view of one member."""

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
        """Does nothing. It exists so that a channel can be used in a ``with`` block like other resources."""

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
        """Sends a message. It is durable in the outbox when this returns. Messages go out in the order of the calls.

        Args:
            payload: Bytes, or text, which is sent as UTF-8.
            json: A value, which is sent as JSON.
            content_type: The media type of the payload; text and JSON have a default.
            key: An idempotency key: sending the same key again refers to the same message, even after a restart.
            reply_to: The id of the message that this one answers. See also ``Received.reply``.
            wait: Wait for room if the outbox is full, instead of raising.
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

        Raises ``NoReply`` after ``timeout`` seconds, which is a ``TimeoutError`` and says whether the request was delivered.
        With a ``key`` the same call resumes waiting, even after a restart: the request is sent once, and an answer that arrived
        meanwhile is returned at once.

        This acknowledges nothing: ``messages`` yields the answer in its place, too, and the reader of the messages acknowledges
        it. A program that reads no messages calls ``ack`` on the answer, which acknowledges all earlier messages as well.
        """
        content, content_type = _content(payload, json, content_type)
        return Received(await self._native.request(content, timeout, content_type, key))

    def messages(self, *, until: asyncio.Event | None = None) -> Messages:
        """Iterates over messages of other agents: first the unacknowledged ones, oldest first, then new ones as they arrive.

        Ends when this agent is no longer in the channel, or when ``until`` is set. With 10,000 unacknowledged messages
        (``unacknowledged_max``) the channel pauses, until fewer than half as many are left.
        """
        return Messages(self._native.messages(), until)

    async def ack(self, offset: int) -> None:
        """Acknowledges all messages up to and including an offset."""
        await self._native.ack(offset)

    async def history(self, after: int = 0, limit: int = 100) -> list[Message]:
        """Returns messages after an offset, including this agent's own, oldest first."""
        return [Message(*row) for row in await self._native.history(after, limit)]

    async def add(self, agents: Iterable[str]) -> Sent:
        """Adds agents, all of them or none. Needs a session; ``ensure_members`` also works offline."""
        return Sent(await self._native.add(list(agents)))

    async def ensure_members(self, agents: Iterable[str]) -> None:
        """Ensures that agents are members before any later message is sent. Works offline; existing members are skipped.

        Messages sent after this call wait until the additions are in the log, so that the new members can read them. An agent
        that cannot be added within a minute, or refuses, no longer holds back messages: ``MemberNotAdded`` reports it.
        """
        await self._native.ensure_members(list(agents))

    async def remove(self, agents: Iterable[str]) -> Sent:
        """Removes agents."""
        return Sent(await self._native.remove(list(agents)))

    async def leave(self) -> Sent:
        """Leaves the channel."""
        return Sent(await self._native.leave())

    async def rotate(self) -> Sent:
        """Replaces this agent's keys in the channel: keys stolen before are useless afterwards."""
        return Sent(await self._native.rotate())

    async def members(self) -> list[str]:
        """Lists the agents in the channel, including this one."""
        return await self._native.members()

    async def caught_up(self) -> None:
        """Waits until the channel is read to its end."""
        await self._native.caught_up()

    async def relabel(self, label: str) -> None:
        """Changes the channel's label, which stays in the vault."""
        await self._native.relabel(label)

    async def forget(self) -> None:
        """Deletes a left channel from the vault, with its history."""
        await self._native.forget()

    async def info(self) -> ChannelInfo:
        """Returns the channel's state in the vault."""
        return _info(_json.loads(await self._native.info()))

    async def outbox(self) -> list[Queued]:
        """Lists the outbox, in sending order."""
        return [Queued(*row) for row in await self._native.outbox()]


class _Opening:
    """An agent being opened: await it, or use it as an asynchronous context manager."""

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
        """Opens a vault, or creates one with a new identity. Attaches to another process of this user if that one has it open.

        ``async with Agent.open(...) as agent`` closes it at the end; ``agent = await Agent.open(...)`` leaves that to you.

        Args:
            vault: The vault's file.
            api_url: The URL of the API.
            api_key: Your account's key, ``sk_live_...``.
            passphrase: The vault's passphrase. Without it the key is in ``key_file``, or in ``<vault>.key``, which is created.
            key_file: A file that holds the vault's key.
            region: The region of the fleet that this agent is in or nearest to.
            unacknowledged_max: Number of unacknowledged messages that pauses a channel, 10,000 by default.
            connect: Whether to connect at once. Raises ``Unauthorized`` if the key is not accepted; without a network the agent
                works offline and connects automatically later.
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
        """Like ``open``, with ``SKYTALE_API_URL``, ``SKYTALE_API_KEY`` and, if it is set, ``SKYTALE_VAULT_PASSPHRASE``."""
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
        """Starts to connect. Raises ``Unauthorized`` if the key is not accepted, but not if there is no network."""
        await self._native.connect()

    async def connected(self) -> None:
        """Waits for a session; raises if there cannot be one."""
        await self._native.connected()

    async def caught_up(self) -> None:
        """Waits until all channels are read to their ends."""
        await self._native.caught_up()

    async def flushed(self) -> None:
        """Waits until all outboxes are empty."""
        await self._native.flushed()

    async def disconnect(self) -> None:
        """Ends the session. Messages sent later wait in the outbox."""
        await self._native.disconnect()

    async def close(self, timeout: float = 5) -> None:
        """Sends what it can within ``timeout`` seconds, ends the session and closes the vault."""
        _open_agents.discard(self)
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
        await self._native.close(timeout)

    async def create_channel(self, label: str) -> Channel:
        """Creates a channel with this agent as its only member. The label stays in the vault."""
        return Channel(await self._native.create_channel(label))

    async def ensure_channel(self, label: str) -> Channel:
        """Returns the channel with a label: the existing one, or a new one. It is the same after a restart."""
        return Channel(await self._native.ensure_channel(label))

    async def join(self, label: str, timeout: float | None = None) -> Channel:
        """Joins the channel that another agent adds this one to, and gives it this label. Returns at once if it has the label.

        Raises ``TimeoutError`` after ``timeout`` seconds.
        """
        return Channel(await asyncio.wait_for(_coroutine(self._native.join(label)), timeout))

    async def channel(self, id: str) -> Channel:
        """Returns a channel of the vault, by its id."""
        return Channel(await self._native.channel(id))

    async def channels(self) -> list[ChannelInfo]:
        """Lists all channels of the vault, including those that were left."""
        return [_info(value) for value in _json.loads(await self._native.channels())]

    async def problems(self) -> list[Problem]:
        """Lists the problems of each channel: lost entries, failed sends, misbehaviour of the relay."""
        return [Problem(*row) for row in await self._native.problems()]

    def messages(self, *channels: Channel, until: asyncio.Event | None = None) -> Messages:
        """Iterates over messages of several channels; without arguments, of all channels, including later ones."""
        ids = [channel.id for channel in channels] or None
        return Messages(self._native.messages(ids), until)

    async def events(self) -> AsyncIterator[Event]:
        """Yields events from now on, until the agent is closed."""
        events = self._native.events()
        while (event := await events.next()) is not None:
            yield _events.read(event)

    def on(self, kind: type[_E], handler: Callable[[_E], object]) -> None:
        """Calls a function, or awaits a coroutine function, for each event of a class from now on.

        Call it in the thread of the event loop. Exceptions of a handler go to the loop's exception handler.
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
    """Closes open agents with the interpreter, so that no thread of an agent outlives it."""
    for agent in list(_open_agents):
        agent._native.close_now(1)  # pyright: ignore[reportPrivateUsage]
    _skytale.end()
