"""A session of the OpenAI Agents SDK in a channel: all members, in any process, continue one conversation.

    session = ChannelSession(await agent.ensure_channel("support"), "ticket-7")
    await Runner.run(assistant, "hello", session=session)

Each change is one message: items that were added, the item that was taken back, or that all were removed. What a session
holds is what these come to in the order of the log, which is the same for all members. A change is durable when its call
returns, also without a network. A member has what was sent after it was added.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, TypeAlias

import skytale
from agents import TResponseInputItem
from agents.memory import SessionSettings

CONTENT_TYPE = "application/vnd.skytale.openai-session+json"
PAGE = 100
_Items: TypeAlias = dict[str, TResponseInputItem]


def _apply(items: _Items, id: str, change: dict[str, Any]) -> None:
    """Makes a change. Doing so twice is the same as once."""
    for index, item in enumerate(change.get("add", ())):
        items[f"{id}/{index}"] = item
    if "pop" in change:
        items.pop(change["pop"], None)
    if change.get("clear"):
        items.clear()


class ChannelSession:
    """A conversation in a channel. A channel may hold any number of them, each with its own `session_id`."""

    session_settings: SessionSettings | None = None

    def __init__(self, channel: skytale.Channel, session_id: str, *, wait: float = 5) -> None:
        """With `wait`: for how many seconds a reader waits for the network, before it goes on with what the vault has."""
        self.session_id = session_id
        self._channel = channel
        self._wait = wait
        self._reading = asyncio.Lock()
        self._offset = 0
        self._items: _Items = {}
        # Sent by this object, and not in the log yet, in the order in which they will be.
        self._sent: dict[str, dict[str, Any]] = {}

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """The conversation; with a limit its newest items. Oldest first."""
        if limit is None and self.session_settings is not None:
            limit = self.session_settings.limit
        items = list((await self._read()).values())
        return items if limit is None else items[max(len(items) - limit, 0) :]

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Adds items, all of them or none."""
        if items:
            await self._send({"add": items})

    async def pop_item(self) -> TResponseInputItem | None:
        """Takes the newest item back. What two members take back at once is the same item."""
        items = await self._read()
        if not items:
            return None
        newest = next(reversed(items))
        await self._send({"pop": newest})
        return items[newest]

    async def clear_session(self) -> None:
        """Removes all items. The messages stay in the log and in the vaults' histories."""
        await self._send({"clear": True})

    async def _send(self, change: dict[str, Any]) -> None:
        async with self._reading:
            message = {"session": self.session_id, **change}
            sent = await self._channel.send(json=message, content_type=CONTENT_TYPE)
            self._sent[sent.id] = change

    async def _read(self) -> _Items:
        with suppress(TimeoutError, asyncio.TimeoutError):
            await asyncio.wait_for(self._channel.caught_up(), self._wait)
        async with self._reading:
            while rows := await self._channel.history(self._offset, PAGE):
                for message in rows:
                    self._offset = message.offset
                    self._sent.pop(message.id, None)
                    if message.content_type == CONTENT_TYPE and message.json()["session"] == self.session_id:
                        _apply(self._items, message.id, message.json())
                # The history keeps what was acknowledged.
                await self._channel.ack(self._offset)
            items = dict(self._items)
            for id, change in self._sent.items():
                _apply(items, id, change)
            return items
