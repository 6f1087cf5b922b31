"""The server's side of A2A over a channel: a2a-sdk's `RequestHandler`, whose requests and answers are messages.

    await ChannelServer(agent, channel, handler).serve()

A request that was not answered when the process was killed is run again after its restart, and one that was answered is not.
The caller (`context.user`) is the agent that signed the request. Requests run at the same time, so that one can cancel another.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

import a2a.types.a2a_pb2 as pb
import skytale
from a2a.auth.user import User
from a2a.server.context import ServerCallContext
from a2a.server.request_handlers.request_handler import RequestHandler
from a2a.utils import errors
from a2a.utils.proto_utils import to_stream_response
from a2a_channel import CONTENT_TYPE, task_of
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import Message as Proto

RUNNING_MAX: Final = 100
PAGE: Final = 100

# Of each method its request and what the handler calls it.
_METHODS: Final[dict[str, tuple[type[Proto], str]]] = {
    "GetTask": (pb.GetTaskRequest, "on_get_task"),
    "ListTasks": (pb.ListTasksRequest, "on_list_tasks"),
    "CancelTask": (pb.CancelTaskRequest, "on_cancel_task"),
    "CreatePush": (pb.TaskPushNotificationConfig, "on_create_task_push_notification_config"),
    "GetPush": (pb.GetTaskPushNotificationConfigRequest, "on_get_task_push_notification_config"),
    "ListPush": (pb.ListTaskPushNotificationConfigsRequest, "on_list_task_push_notification_configs"),
    "DeletePush": (pb.DeleteTaskPushNotificationConfigRequest, "on_delete_task_push_notification_config"),
    "GetCard": (pb.GetExtendedAgentCardRequest, "on_get_extended_agent_card"),
}


class Member(User):
    """The agent that signed a request."""

    def __init__(self, agent: str) -> None:
        self._agent = agent

    @property
    def is_authenticated(self) -> bool:
        return True

    @property
    def user_name(self) -> str:
        return self._agent


class ChannelServer:
    """Answers the A2A requests of a channel's other members."""

    def __init__(self, agent: skytale.Agent, channel: skytale.Channel, handler: RequestHandler) -> None:
        self._agent = agent
        self._channel = channel
        self._handler = handler
        self._room = asyncio.Semaphore(RUNNING_MAX)
        # By offset, in the log's order: an acknowledgement counts for all messages before it, too.
        self._open: dict[int, skytale.Received] = {}
        self._done: set[int] = set()
        self._stopped = False

    async def serve(self) -> None:
        """Serves until it is cancelled, or this agent is in the channel no longer. Once for each object."""
        # What the process before answered is in the log then, and so in the history.
        await self._agent.flushed()
        answered: set[str] | None = None
        running: set[asyncio.Task[None]] = set()
        try:
            async for message in self._channel.messages():
                if answered is None:
                    answered = await self._answered(message.offset)
                await self._room.acquire()
                self._open[message.offset] = message
                asked = message.content_type == CONTENT_TYPE and message.id not in answered
                work = asyncio.create_task(self._deal_with(message, asked))
                running.add(work)
                work.add_done_callback(running.discard)
        finally:
            self._stopped = True
            for work in list(running):
                work.cancel()

    async def _answered(self, after: int) -> set[str]:
        answered: set[str] = set()
        while rows := await self._channel.history(after, PAGE):
            after = rows[-1].offset
            for row in rows:
                if row.own and row.reply_to and row.content_type == CONTENT_TYPE and "event" not in row.json():
                    answered.add(row.reply_to)
        return answered

    async def _deal_with(self, message: skytale.Received, asked: bool) -> None:
        try:
            if asked:
                outcome = await self._outcome(message)
                if self._stopped:
                    # A cancelled task's events end as if it were complete: the request is for the next process.
                    return
                await self._send(message, outcome)
        finally:
            self._room.release()
        self._done.add(message.offset)
        last: skytale.Received | None = None
        while self._open and (first := next(iter(self._open))) in self._done:
            self._done.discard(first)
            last = self._open.pop(first)
        if last is not None:
            await last.ack()

    async def _send(self, message: skytale.Received, answer: dict[str, Any]) -> None:
        await self._channel.send(json=answer, content_type=CONTENT_TYPE, reply_to=message.id)

    async def _outcome(self, message: skytale.Received) -> dict[str, Any]:
        """What a request came to: a result or an error. Events of its task are sent meanwhile."""
        try:
            return {"result": await self._call(message)}
        except ParseError as error:
            failed: errors.A2AError = errors.InvalidParamsError(str(error))
        except errors.A2AError as error:
            failed = error
        except Exception:
            logging.getLogger(__name__).exception("request %s failed", message.id)
            failed = errors.InternalError()
        return {"error": {"type": type(failed).__name__, "message": failed.message}}

    async def _call(self, message: skytale.Received) -> dict[str, Any]:
        asked = message.json()
        context = ServerCallContext(user=Member(message.author))
        if asked["method"] == "SendMessage":
            request = ParseDict(asked["params"], pb.SendMessageRequest(), ignore_unknown_fields=True)
            async for each in self._handler.on_message_send_stream(request, context):
                event = to_stream_response(each)
                await self._send(message, {"event": MessageToDict(event), "task": task_of(event)})
            return {}
        if asked["method"] not in _METHODS:
            raise errors.MethodNotFoundError
        kind, name = _METHODS[asked["method"]]
        result = await getattr(self._handler, name)(ParseDict(asked["params"], kind(), ignore_unknown_fields=True), context)
        if result is None and asked["method"] != "DeletePush":
            raise errors.TaskNotFoundError
        return MessageToDict(result) if isinstance(result, Proto) else {}
