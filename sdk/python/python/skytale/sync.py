"""The same agents and channels without ``async``: each call blocks until it is done.

    import skytale.sync

    with skytale.sync.Agent.from_env("bob.vault") as agent:
        with agent.join("tasks") as tasks:
            for message in tasks.messages():
                message.reply("done")

Calls may come from any thread. Ctrl-C ends a wait at once.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from types import TracebackType
from typing import Any, TypeVar

import skytale

from . import ChannelInfo, Event, Message, Problem, Queued
from . import Received as _AsyncReceived
from . import Sent as _AsyncSent

__all__ = ["Agent", "Channel", "Received", "Sent"]

_T = TypeVar("_T")
_E = TypeVar("_E", bound=Event)
_NOTHING = skytale._NOTHING  # pyright: ignore[reportPrivateUsage]


class _Loop:
    """One event loop for all, in its own thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                threading.Thread(target=loop.run_forever, name="skytale.sync", daemon=True).start()
                self._loop = loop
            return self._loop

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        future = asyncio.run_coroutine_threadsafe(work, self._running())
        try:
            return future.result()
        except BaseException:
            # Interrupted: the awaitable is cancelled, which leaves nothing half done.
            future.cancel()
            raise

    def call(self, work: Callable[[], _T]) -> _T:
        """Runs a function in the thread of the loop."""

        async def done() -> _T:
            return work()

        return self.run(done())


_loop = _Loop()


def _each(messages: AsyncIterator[_AsyncReceived], timeout: float | None) -> Iterator[Received]:
    async def following() -> _AsyncReceived | None:
        try:
            return await asyncio.wait_for(anext(messages), timeout)
        except (StopAsyncIteration, TimeoutError, asyncio.TimeoutError):
            return None

    while (message := _loop.run(following())) is not None:
        yield Received(message)


class Sent:
    """Handle of a message or change that is durable in the outbox."""

    def __init__(self, sent: _AsyncSent) -> None:
        self._sent = sent

    @property
    def id(self) -> str:
        """Its id, which stays the same across retries and restarts."""
        return self._sent.id

    def delivered(self, timeout: float | None = None) -> int | None:
        """Waits until it is in the log, and returns its offset. Raises ``TimeoutError`` after ``timeout`` seconds."""
        return _loop.run(asyncio.wait_for(self._sent.delivered(), timeout))


class Received:
    """An unacknowledged message of another agent."""

    def __init__(self, message: _AsyncReceived) -> None:
        self._message = message
        self.payload = message.payload
        self.id = message.id
        self.channel_id = message.channel_id
        self.author = message.author
        self.offset = message.offset
        self.sent_ms = message.sent_ms
        self.time_ms = message.time_ms
        self.reply_to = message.reply_to
        self.content_type = message.content_type

    def __repr__(self) -> str:
        return repr(self._message)

    def text(self) -> str:
        """Returns the payload as text."""
        return self._message.text()

    def json(self) -> Any:
        """Returns the payload as JSON."""
        return self._message.json()

    def ack(self) -> None:
        """Acknowledges the message and all earlier ones in its channel."""
        _loop.run(self._message.ack())

    def reply(
        self,
        payload: bytes | str | None = None,
        *,
        json: object = _NOTHING,
        content_type: str | None = None,
        key: str | None = None,
    ) -> Sent:
        """Answers the message and acknowledges it, in one transaction."""
        return Sent(_loop.run(self._message.reply(payload, json=json, content_type=content_type, key=key)))


class Channel:
    """A channel, from the point of view of one member."""

    def __init__(self, channel: skytale.Channel) -> None:
        self._channel = channel

    def __repr__(self) -> str:
        return repr(self._channel)

    def __enter__(self) -> Channel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Does nothing."""

    @property
    def id(self) -> str:
        """Its id, the same for all members."""
        return self._channel.id

    def send(
        self,
        payload: bytes | str | None = None,
        *,
        json: object = _NOTHING,
        content_type: str | None = None,
        key: str | None = None,
        reply_to: str | None = None,
        wait: bool = False,
    ) -> Sent:
        """Sends a message: see ``skytale.Channel.send``."""
        sent = self._channel.send(payload, json=json, content_type=content_type, key=key, reply_to=reply_to, wait=wait)
        return Sent(_loop.run(sent))

    def request(
        self,
        payload: bytes | str | None = None,
        *,
        json: object = _NOTHING,
        content_type: str | None = None,
        key: str | None = None,
        timeout: float | None = None,
    ) -> Received:
        """Sends a message and waits for the first one that answers it: see ``skytale.Channel.request``."""
        asked = self._channel.request(payload, json=json, content_type=content_type, key=key, timeout=timeout)
        return Received(_loop.run(asked))

    def messages(self, *, timeout: float | None = None) -> Iterator[Received]:
        """Iterates over unacknowledged messages, then new ones; ends after ``timeout`` seconds without one."""
        return _each(self._channel.messages(), timeout)

    def ack(self, offset: int) -> None:
        """Acknowledges all messages up to and including an offset."""
        _loop.run(self._channel.ack(offset))

    def history(self, after: int = 0, limit: int = 100) -> list[Message]:
        """Returns messages after an offset, including this agent's own, oldest first."""
        return _loop.run(self._channel.history(after, limit))

    def add(self, agents: Iterable[str]) -> Sent:
        """Adds agents, all of them or none. Needs a session."""
        return Sent(_loop.run(self._channel.add(agents)))

    def ensure_members(self, agents: Iterable[str]) -> None:
        """Ensures that agents are members: see ``skytale.Channel.ensure_members``."""
        _loop.run(self._channel.ensure_members(agents))

    def remove(self, agents: Iterable[str]) -> Sent:
        """Removes agents."""
        return Sent(_loop.run(self._channel.remove(agents)))

    def leave(self) -> Sent:
        """Leaves the channel."""
        return Sent(_loop.run(self._channel.leave()))

    def rotate(self) -> Sent:
        """Replaces this agent's keys in the channel."""
        return Sent(_loop.run(self._channel.rotate()))

    def members(self) -> list[str]:
        """Lists the agents in the channel, including this one."""
        return _loop.run(self._channel.members())

    def caught_up(self) -> None:
        """Waits until the channel is read to its end."""
        _loop.run(self._channel.caught_up())

    def relabel(self, label: str) -> None:
        """Changes the channel's label."""
        _loop.run(self._channel.relabel(label))

    def forget(self) -> None:
        """Deletes a left channel from the vault."""
        _loop.run(self._channel.forget())

    def info(self) -> ChannelInfo:
        """Returns the channel's state in the vault."""
        return _loop.run(self._channel.info())

    def outbox(self) -> list[Queued]:
        """Lists the outbox."""
        return _loop.run(self._channel.outbox())


async def _opened(opening: Any) -> skytale.Agent:
    agent: skytale.Agent = await opening
    return agent


class Agent:
    """An agent: one identity, one vault, one session with a relay node at a time."""

    def __init__(self, agent: skytale.Agent) -> None:
        self._agent = agent

    def __repr__(self) -> str:
        return repr(self._agent)

    def __enter__(self) -> Agent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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
    ) -> Agent:
        """Opens a vault, or creates one: see ``skytale.Agent.open``."""
        opening = skytale.Agent.open(
            vault,
            api_url=api_url,
            api_key=api_key,
            passphrase=passphrase,
            key_file=key_file,
            region=region,
            unacknowledged_max=unacknowledged_max,
            connect=connect,
        )
        return cls(_loop.run(_opened(opening)))

    @classmethod
    def from_env(cls, vault: str | os.PathLike[str], *, connect: bool = True) -> Agent:
        """Like ``open``, configured by the environment: see ``skytale.Agent.from_env``."""
        return cls(_loop.run(_opened(skytale.Agent.from_env(vault, connect=connect))))

    @property
    def id(self) -> str:
        """The agent's identity: its public key, 64 hex digits."""
        return self._agent.id

    @property
    def is_connected(self) -> bool:
        """Whether there is a session with a relay node now."""
        return self._agent.is_connected

    def connect(self) -> None:
        """Starts to connect. Raises ``Unauthorized`` if the key is not accepted."""
        _loop.run(self._agent.connect())

    def connected(self) -> None:
        """Waits for a session; raises if there cannot be one."""
        _loop.run(self._agent.connected())

    def caught_up(self) -> None:
        """Waits until all channels are read to their ends."""
        _loop.run(self._agent.caught_up())

    def flushed(self) -> None:
        """Waits until all outboxes are empty."""
        _loop.run(self._agent.flushed())

    def disconnect(self) -> None:
        """Ends the session."""
        _loop.run(self._agent.disconnect())

    def close(self, timeout: float = 5) -> None:
        """Sends what it can within ``timeout`` seconds, ends the session and closes the vault."""
        _loop.run(self._agent.close(timeout))

    def create_channel(self, label: str) -> Channel:
        """Creates a channel with this agent as its only member."""
        return Channel(_loop.run(self._agent.create_channel(label)))

    def ensure_channel(self, label: str) -> Channel:
        """Returns the channel with a label: the existing one, or a new one."""
        return Channel(_loop.run(self._agent.ensure_channel(label)))

    def join(self, label: str, timeout: float | None = None) -> Channel:
        """Joins the channel that another agent adds this one to, and gives it this label."""
        return Channel(_loop.run(self._agent.join(label, timeout)))

    def channel(self, id: str) -> Channel:
        """Returns a channel of the vault, by its id."""
        return Channel(_loop.run(self._agent.channel(id)))

    def channels(self) -> list[ChannelInfo]:
        """Lists all channels of the vault, including those that were left."""
        return _loop.run(self._agent.channels())

    def problems(self) -> list[Problem]:
        """Lists the problems of each channel."""
        return _loop.run(self._agent.problems())

    def messages(self, *channels: Channel, timeout: float | None = None) -> Iterator[Received]:
        """Iterates over messages of several channels, or of all; ends after ``timeout`` seconds without one."""
        each = [channel._channel for channel in channels]  # pyright: ignore[reportPrivateUsage]
        return _each(self._agent.messages(*each), timeout)

    def on(self, kind: type[_E], handler: Callable[[_E], object]) -> None:
        """Calls a function, in the thread of the event loop, for each event of a class from now on."""
        _loop.call(lambda: self._agent.on(kind, handler))
