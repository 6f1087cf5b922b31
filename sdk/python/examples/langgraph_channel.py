"""LangGraph over channels: checkpoints in a channel, a node that asks another agent, a graph that answers messages.

    saver = await ChannelSaver.open(agent, await agent.ensure_channel("checkpoints"))
    graph = builder.compile(checkpointer=saver)
    await graph.ainvoke({"n": 3}, {"configurable": {"thread_id": "order-7"}})    # after a crash: ainvoke(None, ...)

A checkpoint is durable when its step ends, also without a network. Other members of the checkpoints' channel have all
threads, and any of them can go on where another one ended; that no two do so at once is up to you.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar, cast

import skytale
from follow import Follower
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import StateSnapshot

CONTENT_TYPE = "application/vnd.skytale.langgraph"
PAGE = 100
_State = TypeVar("_State")


class Graph(Protocol):
    """What is used of a compiled graph."""

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None) -> Any: ...
    async def aget_state(self, config: RunnableConfig) -> StateSnapshot: ...


def _place(config: RunnableConfig) -> RunnableConfig:
    """Which checkpoint is meant, without what a run adds to a configuration."""
    names = ("thread_id", "checkpoint_ns", "checkpoint_id")
    kept = config.get("configurable", {})
    return {"configurable": {"checkpoint_ns": "", **{name: kept[name] for name in names if name in kept}}}


class ChannelSaver(InMemorySaver):
    """A checkpointer whose changes are messages of a channel, and whose state is what they come to. For `ainvoke` and `astream`."""

    def __init__(self, channel: skytale.Channel) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]
        self._channel = channel
        self._changing = asyncio.Lock()
        self._offset = 0
        self._own: set[str] = set()

    @classmethod
    async def open(cls, agent: skytale.Agent, channel: skytale.Channel) -> ChannelSaver:
        """With all that the log has: waits until what an earlier process left in the outbox is there."""
        await agent.flushed()
        await channel.caught_up()
        return cls(channel)

    async def aput(
        self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata, new_versions: ChannelVersions
    ) -> RunnableConfig:
        # What did not change is in the messages before.
        values = {name: value for name, value in checkpoint["channel_values"].items() if name in new_versions}
        slim: Checkpoint = {**checkpoint, "channel_values": values}
        kept = get_checkpoint_metadata(config, metadata)
        return cast("RunnableConfig", await self._change("put", _place(config), slim, kept, new_versions))

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        await self._change("put_writes", _place(config), list(writes), task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        await self._change("delete_thread", thread_id)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        async with self._changing:
            await self._read()
            return super().get_tuple(config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        async with self._changing:
            await self._read()
            listed = list[CheckpointTuple](super().list(config, filter=filter, before=before, limit=limit))
        for each in listed:
            yield each

    async def _change(self, name: str, *arguments: Any) -> Any:
        kind, data = self.serde.dumps_typed((name, *arguments))
        async with self._changing:
            sent = await self._channel.send(kind.encode() + b"\0" + data, content_type=CONTENT_TYPE)
            self._own.add(sent.id)
            return self._apply(name, *arguments)

    def _apply(self, name: str, *arguments: Any) -> Any:
        apply: dict[str, Callable[..., Any]] = {
            "put": super().put,
            "put_writes": super().put_writes,
            "delete_thread": super().delete_thread,
        }
        return apply[name](*arguments)

    async def _read(self) -> None:
        while rows := await self._channel.history(self._offset, PAGE):
            for message in rows:
                self._offset = message.offset
                if message.id in self._own:
                    self._own.discard(message.id)
                elif message.content_type == CONTENT_TYPE:
                    kind, data = message.payload.split(b"\0", 1)
                    self._apply(*self.serde.loads_typed((kind.decode(), data)))
            await self._channel.ack(self._offset)

    def _only_async(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError("use ainvoke or astream")

    put = put_writes = delete_thread = _only_async


def asks(
    follower: Follower, of: str, question: Callable[[_State], object], into: str
) -> Callable[[_State, RunnableConfig], Awaitable[dict[str, Any]]]:
    """A node that sends a question and waits for an agent's answer, which it puts into the state under a name.

    A node that is run again, after a crash, asks nothing again: it is the same message, and its answer may be there already.
    """

    async def node(state: _State, config: RunnableConfig) -> dict[str, Any]:
        place = config.get("configurable", {})
        # The namespace holds the task's id, which stays the same until the node's step is in a checkpoint.
        key = f"{place['thread_id']}/{place['checkpoint_ns']}"
        sent = await follower.channel.send(json=question(state), key=key)
        async for message in follower.after(await sent.delivered() or 0):
            if message.reply_to == sent.id and message.author == of:
                return {into: message.json()}
        raise AssertionError("a follower does not end")

    return node


async def answer_with(
    graph: Graph, messages: skytale.Messages, answer: Callable[[dict[str, Any]], object]
) -> None:
    """Runs a graph for each message, in a thread of its own, and answers with what it came to.

    The answer and the acknowledgement are one transaction. After a crash the message comes again, and its thread goes on from
    its last checkpoint. These messages must not be in a channel that a `Follower` acknowledges, too.
    """
    async for message in messages:
        config: RunnableConfig = {"configurable": {"thread_id": message.id}}
        before = await graph.aget_state(config)
        if before.created_at is None:
            state = await graph.ainvoke(message.json(), config)
        else:
            state = await graph.ainvoke(None, config) if before.next else before.values
        await message.reply(json=answer(state))
