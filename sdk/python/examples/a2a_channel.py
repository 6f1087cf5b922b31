"""A2A over a channel: a `ClientTransport` of a2a-sdk. Its server side is in a2a_server.py. Neither needs an address.

    async with Follower(channel) as follower:
        factory = ClientFactory(ClientConfig(supported_protocol_bindings=[BINDING]))
        factory.register(BINDING, lambda card, url, config: ChannelTransport(follower, url))
        client = factory.create(card)  # whose supported_interfaces has interface(channel.id, server.id)

Every event of a task is a message. A client that was away or restarted has them all, so that SubscribeToTask replays the log
and then follows it, also while the server is down. All members of the channel read all tasks: give each client a channel of
its own, or share one among clients that may know of each other.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Final, TypeVar

import a2a.types.a2a_pb2 as pb
import skytale
from a2a.client.client import ClientCallContext
from a2a.client.transports.base import ClientTransport
from a2a.utils import errors
from follow import Follower
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message as Proto

BINDING: Final = "skytale"
CONTENT_TYPE: Final = "application/vnd.skytale.a2a+json"
ENDED: Final = (pb.TASK_STATE_COMPLETED, pb.TASK_STATE_FAILED, pb.TASK_STATE_CANCELED, pb.TASK_STATE_REJECTED)
_P = TypeVar("_P", bound=Proto)
_Context = ClientCallContext | None

def interface(channel: str, server: str) -> pb.AgentInterface:
    """Where an agent is reached, for its card: the ids of a channel and of the agent that serves there."""
    return pb.AgentInterface(url=f"{BINDING}:{channel}/{server}", protocol_binding=BINDING, protocol_version="1.0")


def _error(said: dict[str, str]) -> errors.A2AError:
    known = {kind.__name__: kind for kind in errors.JSON_RPC_ERROR_CODE_MAP}
    return known.get(said["type"], errors.InternalError)(said["message"])


def task_of(event: pb.StreamResponse) -> str:
    return event.task.id or event.status_update.task_id or event.artifact_update.task_id or event.message.task_id


class ChannelTransport(ClientTransport):
    """The client's side."""

    def __init__(self, follower: Follower, url: str) -> None:
        self._follower = follower
        self._server = url.rpartition("/")[2]

    async def _answers(self, method: str, request: Proto) -> AsyncGenerator[dict[str, Any], None]:
        asked = {"method": method, "params": MessageToDict(request)}
        sent = await self._follower.channel.send(json=asked, content_type=CONTENT_TYPE)
        async for message in self._follower.after(await sent.delivered() or 0):
            if message.reply_to == sent.id and message.author == self._server:
                answer = message.json()
                if "error" in answer:
                    raise _error(answer["error"])
                yield answer
                if "event" not in answer:
                    return

    async def _call(self, method: str, request: Proto, into: _P) -> _P:
        async for answer in self._answers(method, request):
            return ParseDict(answer.get("result", {}), into, ignore_unknown_fields=True)
        raise errors.InternalError

    async def send_message_streaming(
        self, request: pb.SendMessageRequest, *, context: _Context = None
    ) -> AsyncGenerator[pb.StreamResponse, None]:
        async for answer in self._answers("SendMessage", request):
            if "event" in answer:
                yield ParseDict(answer["event"], pb.StreamResponse(), ignore_unknown_fields=True)

    async def send_message(
        self, request: pb.SendMessageRequest, *, context: _Context = None
    ) -> pb.SendMessageResponse:
        last = pb.StreamResponse()
        async for event in self.send_message_streaming(request):
            last = event
            if request.configuration.return_immediately and event.HasField("task"):
                return pb.SendMessageResponse(task=event.task)
        if last.HasField("message"):
            return pb.SendMessageResponse(message=last.message)
        length = request.configuration.history_length if request.configuration.HasField("history_length") else None
        return pb.SendMessageResponse(task=await self.get_task(pb.GetTaskRequest(id=task_of(last), history_length=length)))

    async def subscribe(
        self, request: pb.SubscribeToTaskRequest, *, context: _Context = None
    ) -> AsyncGenerator[pb.StreamResponse, None]:
        # Of a task from before this agent was added its vault has no beginning: the server has it, or says that there is none.
        begun = [event.HasField("task") async for event in self._events(request.id, self._follower.stored())]
        if not begun or not begun[0]:
            yield pb.StreamResponse(task=await self.get_task(pb.GetTaskRequest(id=request.id)))
        async for event in self._events(request.id, self._follower.after()):
            yield event
            if (event.task.status.state or event.status_update.status.state) in ENDED:
                return

    async def _events(
        self, task: str, messages: AsyncGenerator[skytale.Message, None]
    ) -> AsyncGenerator[pb.StreamResponse, None]:
        async for message in messages:
            if message.content_type == CONTENT_TYPE and message.author == self._server:
                answer = message.json()
                if answer.get("task") == task:
                    yield ParseDict(answer["event"], pb.StreamResponse(), ignore_unknown_fields=True)

    async def get_task(self, request: pb.GetTaskRequest, *, context: _Context = None) -> pb.Task:
        return await self._call("GetTask", request, pb.Task())

    async def list_tasks(self, request: pb.ListTasksRequest, *, context: _Context = None) -> pb.ListTasksResponse:
        return await self._call("ListTasks", request, pb.ListTasksResponse())

    async def cancel_task(self, request: pb.CancelTaskRequest, *, context: _Context = None) -> pb.Task:
        return await self._call("CancelTask", request, pb.Task())

    async def create_task_push_notification_config(
        self, request: pb.TaskPushNotificationConfig, *, context: _Context = None
    ) -> pb.TaskPushNotificationConfig:
        return await self._call("CreatePush", request, pb.TaskPushNotificationConfig())

    async def get_task_push_notification_config(
        self, request: pb.GetTaskPushNotificationConfigRequest, *, context: _Context = None
    ) -> pb.TaskPushNotificationConfig:
        return await self._call("GetPush", request, pb.TaskPushNotificationConfig())

    async def list_task_push_notification_configs(
        self, request: pb.ListTaskPushNotificationConfigsRequest, *, context: _Context = None
    ) -> pb.ListTaskPushNotificationConfigsResponse:
        return await self._call("ListPush", request, pb.ListTaskPushNotificationConfigsResponse())

    async def delete_task_push_notification_config(
        self, request: pb.DeleteTaskPushNotificationConfigRequest, *, context: _Context = None
    ) -> None:
        async for _ in self._answers("DeletePush", request):
            pass

    async def get_extended_agent_card(
        self, request: pb.GetExtendedAgentCardRequest, *, context: _Context = None
    ) -> pb.AgentCard:
        return await self._call("GetCard", request, pb.AgentCard())

    async def close(self) -> None:
        """Nothing: the follower is the caller's."""
