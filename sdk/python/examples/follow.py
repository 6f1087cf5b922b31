"""Follows a channel from any offset: first what the vault has, then what comes. The adapters beside it are built on this."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import TracebackType

import skytale

PAGE = 100


class Follower:
    """Reads a channel for any number of followers. It acknowledges what it was given, because the vault's history keeps it."""

    def __init__(self, channel: skytale.Channel) -> None:
        self.channel = channel
        self._news = asyncio.Condition()
        self._last = 0
        self._ended: BaseException | None = None
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Follower:
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])

    async def _read(self) -> None:
        ended: BaseException = asyncio.CancelledError()
        try:
            async for message in self.channel.messages():
                await message.ack()
                async with self._news:
                    self._last = message.offset
                    self._news.notify_all()
            ended = skytale.ChannelLeft("SKY-5007", "this agent is not in the channel any more", False, "")
        except Exception as error:
            ended = error
        finally:
            self._ended = ended
        async with self._news:
            self._news.notify_all()

    async def stored(self, after: int = 0) -> AsyncGenerator[skytale.Message, None]:
        """Messages of the vault after an offset, own ones too, oldest first."""
        while rows := await self.channel.history(after, PAGE):
            for message in rows:
                after = message.offset
                yield message

    async def after(self, offset: int = 0) -> AsyncGenerator[skytale.Message, None]:
        """The same, and then messages as they come. Raises what ended the reading."""
        while True:
            async for message in self.stored(offset):
                offset = message.offset
                yield message
            async with self._news:
                await self._news.wait_for(lambda: self._ended is not None or self._last > offset)
            if self._last <= offset and self._ended is not None:
                raise self._ended
