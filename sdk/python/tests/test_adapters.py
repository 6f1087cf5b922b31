"""The adapters in `examples`, with the packages that they are for, and without a model."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypedDict

import a2a.types.a2a_pb2 as pb
import agents
import pytest
from a2a.client.client import ClientConfig
from a2a.client.client_factory import ClientFactory
from a2a.helpers import new_text_message
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandlerV2
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.utils.errors import TaskNotFoundError
from agents.items import ModelResponse
from agents.usage import Usage
from conftest import Node, python
from langgraph.graph import END, START, StateGraph
from openai.types.responses import ResponseOutputMessage, ResponseOutputText
from test_agents import pair

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

from a2a_channel import BINDING, ChannelTransport, interface  # noqa: E402
from a2a_server import ChannelServer  # noqa: E402
from follow import Follower  # noqa: E402
from langgraph_channel import ChannelSaver, answer_with, asks  # noqa: E402
from openai_session import ChannelSession  # noqa: E402


# ---- OpenAI Agents SDK
def said(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


async def test_a_session_is_the_same_for_all_members_and_after_a_restart(agent) -> None:
    alice, bob, ours, theirs = await pair(agent)
    first, second = ChannelSession(ours, "one"), ChannelSession(theirs, "one")
    assert isinstance(first, agents.Session)
    await first.add_items([said("a"), said("b")])
    await first.add_items([said("c")])
    assert await first.get_items() == [said("a"), said("b"), said("c")]
    assert await first.get_items(limit=2) == [said("b"), said("c")]
    assert await first.get_items(limit=0) == []
    await alice.flushed()
    assert await until(second.get_items, 3) == [said("a"), said("b"), said("c")]
    # Another one takes the newest item back, and there are other sessions in the channel.
    assert await second.pop_item() == said("c")
    await ChannelSession(theirs, "two").add_items([said("elsewhere")])
    await bob.flushed()
    assert await until(first.get_items, 2) == [said("a"), said("b")]
    await alice.close()
    again = ChannelSession(await (await agent("alice")).ensure_channel("tasks"), "one")
    assert await again.get_items() == [said("a"), said("b")]
    assert (await theirs.info()).unacked == 0
    await again.clear_session()
    assert await again.get_items() == [] and await again.pop_item() is None
    await again.add_items([said("d")])
    assert await again.get_items() == [said("d")]


async def until(read, count: int) -> list[Any]:
    """What there is once it is as much as is expected: another agent's messages come when they come."""
    while len(items := await read()) != count:
        await asyncio.sleep(0.02)
    return items


async def test_a_session_is_kept_without_a_network(agent) -> None:
    alice = await agent("alice", connect=False)
    session = ChannelSession(await alice.ensure_channel("alone"), "one", wait=0.05)
    await session.add_items([said("a"), said("b")])
    assert await session.pop_item() == said("b")
    assert await session.get_items() == [said("a")]
    await alice.connect()
    await alice.flushed()
    assert await ChannelSession(await alice.ensure_channel("alone"), "one").get_items() == [said("a")]


class Parrot(agents.Model):
    """Says how much it was given, and the last of it."""

    async def get_response(self, system_instructions, input, *_: object, **__: object) -> ModelResponse:
        text = ResponseOutputText(type="output_text", text=f"{len(input)}: {input[-1]['content']}", annotations=[])
        message = ResponseOutputMessage(
            id="m", type="message", role="assistant", status="completed", content=[text]
        )
        return ModelResponse(output=[message], usage=Usage(), response_id=None)

    def stream_response(self, *_: object, **__: object) -> AsyncIterator[Any]:
        raise NotImplementedError


async def test_the_agents_sdk_continues_another_agents_conversation(agent) -> None:
    agents.set_tracing_disabled(True)
    alice, _, ours, theirs = await pair(agent)
    assistant = agents.Agent(name="parrot", model=Parrot())
    one = await agents.Runner.run(assistant, "hello", session=ChannelSession(ours, "talk"))
    assert one.final_output == "1: hello"
    await alice.flushed()
    second = ChannelSession(theirs, "talk")
    await until(second.get_items, 2)
    two = await agents.Runner.run(assistant, "and again", session=second)
    assert two.final_output == "3: and again"


# ---- LangGraph
class Order(TypedDict, total=False):
    n: int
    price: int
    total: int


LANGGRAPH = """
import asyncio, os, sys
sys.path.insert(0, sys.argv[1])
from typing import TypedDict
import skytale
from follow import Follower
from langgraph.graph import END, START, StateGraph
from langgraph_channel import ChannelSaver, asks
class Order(TypedDict, total=False):
    n: int
    price: int
    total: int
def note(what):
    with open("notes", "a") as file:
        file.write(what + "\\n")
def begin(state):
    note("began")
    return {"n": state["n"] + 1}
def question(state):
    return {"price of": state["n"]}
async def asked(tasks):
    queued = [queued for queued in await tasks.outbox() if queued.kind == "message"]
    return queued or [row for row in await tasks.history() if row.own]
async def end_when_it_waits(graph, config, tasks):
    # Not before the question, and the checkpoint before it, are in the vault.
    while not await asked(tasks) or (await graph.aget_state(config)).next != ("ask",):
        await asyncio.sleep(0.02)
    os.kill(os.getpid(), 9)
async def main():
    async with skytale.Agent.from_env("alice.vault") as agent:
        saver = await ChannelSaver.open(agent, await agent.ensure_channel("state"))
        tasks = await agent.ensure_channel("tasks")
        async with Follower(tasks) as follower:
            builder = StateGraph(Order)
            builder.add_node("begin", begin)
            builder.add_node("ask", asks(follower, sys.argv[3], question, "price"))
            builder.add_node("add up", lambda state: {"total": state["n"] * state["price"]})
            builder.add_edge(START, "begin")
            builder.add_edge("begin", "ask")
            builder.add_edge("ask", "add up")
            builder.add_edge("add up", END)
            graph = builder.compile(checkpointer=saver)
            config = {"configurable": {"thread_id": "order"}}
            begun = (await graph.aget_state(config)).created_at is not None
            run = graph.ainvoke(None if begun else {"n": 2}, config)
            if sys.argv[2] == "killed":
                await asyncio.gather(run, end_when_it_waits(graph, config, tasks))
            else:
                print(await run)
asyncio.run(main())
"""


async def test_a_graph_that_is_killed_while_it_waits_goes_on_and_asks_once(agent, node: Node, tmp_path: Path) -> None:
    alice, bob, _, theirs = await pair(agent)
    await alice.close()
    first = python(node, tmp_path, LANGGRAPH, str(EXAMPLES), "killed", bob.id)
    _, errors = await asyncio.to_thread(first.communicate)
    assert first.returncode == -signal.SIGKILL, errors
    second = python(node, tmp_path, LANGGRAPH, str(EXAMPLES), "stays", bob.id)
    questions = []
    async for message in theirs.messages():
        questions.append(message.json())
        await message.reply(json=7)
        break
    out, errors = await asyncio.to_thread(second.communicate)
    assert (second.returncode, out) == (0, "{'n': 3, 'price': 7, 'total': 21}\n"), errors
    # Once more, to its end: it is there, nothing is run and nothing is asked.
    third = python(node, tmp_path, LANGGRAPH, str(EXAMPLES), "stays", bob.id)
    again, errors = await asyncio.to_thread(third.communicate)
    assert (third.returncode, again) == (0, out), errors
    assert (tmp_path / "notes").read_text() == "began\n"
    assert questions == [{"price of": 3}]
    assert len([kept for kept in await theirs.history() if not kept.own]) == 1


def adder(saver: ChannelSaver, fail: list[bool]) -> Any:
    def add(state: Order) -> Order:
        return {"price": state["n"] + 1}

    def total(state: Order) -> Order:
        if fail and fail.pop():
            raise RuntimeError("killed")
        return {"total": state["price"] * 10}

    builder = StateGraph(Order)
    builder.add_node("add", add)
    builder.add_node("total", total)
    builder.add_edge(START, "add")
    builder.add_edge("add", "total")
    builder.add_edge("total", END)
    return builder.compile(checkpointer=saver)


async def test_another_member_goes_on_with_a_thread(agent) -> None:
    alice, bob, ours, theirs = await pair(agent, "state")
    config = {"configurable": {"thread_id": "t"}}
    with pytest.raises(RuntimeError):
        await adder(await ChannelSaver.open(alice, ours), [True]).ainvoke({"n": 4}, config)
    await alice.flushed()
    saver = await ChannelSaver.open(bob, theirs)
    graph = adder(saver, [])
    while (await graph.aget_state(config)).next != ("total",):
        await asyncio.sleep(0.02)
    assert await graph.ainvoke(None, config) == {"n": 4, "price": 5, "total": 50}
    assert [step.values.get("total") async for step in graph.aget_state_history(config)] == [50, None, None, None]
    with pytest.raises(NotImplementedError):
        graph.invoke({"n": 1}, {"configurable": {"thread_id": "other"}})
    await saver.adelete_thread("t")
    assert await saver.aget_tuple(config) is None
    await bob.flushed()
    assert await (await ChannelSaver.open(bob, theirs)).aget_tuple(config) is None


async def test_a_graph_answers_a_message_once_over_a_failure(agent) -> None:
    alice, bob, ours, theirs = await pair(agent)
    saver = await ChannelSaver.open(bob, await bob.ensure_channel("state"))
    asked = await ours.send(json={"n": 1})
    graph = adder(saver, [True])
    with pytest.raises(RuntimeError):
        await answer_with(graph, theirs.messages(), lambda state: state["total"])
    serving = asyncio.create_task(answer_with(graph, theirs.messages(), lambda state: state["total"]))
    async for answer in ours.messages():
        assert (answer.reply_to, answer.json()) == (asked.id, 20)
        break
    serving.cancel()
    steps = [step async for step in graph.aget_state_history({"configurable": {"thread_id": asked.id}})]
    assert len(steps) == 4, "it went on from its checkpoint, and did not begin again"


# ---- A2A
class Counter(AgentExecutor):
    """Counts to what it is told, one artifact at a time; for `wait` it goes on when it is let."""

    def __init__(self) -> None:
        self.let = asyncio.Event()
        self.users: list[str] = []

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.task_id and context.context_id and context.message and context.call_context
        self.users.append(context.call_context.user.user_name)
        task = pb.Task(id=context.task_id, context_id=context.context_id)
        task.status.state = pb.TASK_STATE_SUBMITTED
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        await updater.start_work()
        text = context.get_user_input()
        for n in range(3):
            if text == "wait" and n == 1:
                await self.let.wait()
            await updater.add_artifact([pb.Part(text=str(n))], name=str(n))
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.task_id and context.context_id
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


def asking(text: str) -> pb.SendMessageRequest:
    return pb.SendMessageRequest(message=new_text_message(text, role=pb.ROLE_USER))


def kinds(events: list[pb.StreamResponse]) -> list[str]:
    names = {pb.TASK_STATE_WORKING: "working", pb.TASK_STATE_COMPLETED: "completed"}
    named = []
    for event in events:
        if event.HasField("artifact_update"):
            named.append(event.artifact_update.artifact.name)
        elif event.HasField("status_update"):
            named.append(names[event.status_update.status.state])
        else:
            named.append("task")
    return named


ALL = ["task", "working", "0", "1", "2", "completed"]


class Setting:
    """A server and a client in one channel."""

    def __init__(self, alice, bob, ours, theirs) -> None:
        self.alice, self.bob, self.ours, self.theirs = alice, bob, ours, theirs
        self.executor = Counter()
        self.card = pb.AgentCard(
            name="counter",
            version="1",
            capabilities=pb.AgentCapabilities(streaming=True),
            supported_interfaces=[interface(theirs.id, bob.id)],
        )
        self.handler = DefaultRequestHandlerV2(self.executor, InMemoryTaskStore(), self.card)
        self.serve()

    def serve(self) -> None:
        self.serving = asyncio.create_task(ChannelServer(self.bob, self.theirs, self.handler).serve())

    def client(self, follower: Follower, **config: Any) -> Any:
        factory = ClientFactory(ClientConfig(supported_protocol_bindings=[BINDING], **config))
        factory.register(BINDING, lambda card, url, config: ChannelTransport(follower, url))
        return factory.create(self.card)

    async def stop(self) -> None:
        self.serving.cancel()
        await asyncio.wait([self.serving])


async def test_a2a_requests_go_over_a_channel(agent) -> None:
    setting = Setting(*await pair(agent))
    async with Follower(setting.ours) as follower:
        client = setting.client(follower)
        events = [event async for event in client.send_message(asking("count"))]
        assert kinds(events) == ALL
        task = await client.get_task(pb.GetTaskRequest(id=events[0].task.id))
        assert task.status.state == pb.TASK_STATE_COMPLETED and len(task.artifacts) == 3
        assert [task.id for task in (await client.list_tasks(pb.ListTasksRequest())).tasks] == [task.id]
        # The caller is whom its signature proves.
        assert setting.executor.users == [setting.alice.id]
        # Without a stream: the task as it was in the end, or at once.
        [whole] = [event async for event in setting.client(follower, streaming=False).send_message(asking("count"))]
        assert whole.task.status.state == pb.TASK_STATE_COMPLETED
        polling = setting.client(follower, streaming=False, polling=True)
        [begun] = [event async for event in polling.send_message(asking("wait"))]
        assert begun.task.status.state == pb.TASK_STATE_SUBMITTED
        # One request ends another one that runs.
        cancelled = await client.cancel_task(pb.CancelTaskRequest(id=begun.task.id))
        assert cancelled.status.state == pb.TASK_STATE_CANCELED
        with pytest.raises(TaskNotFoundError):
            await client.get_task(pb.GetTaskRequest(id="none"))
        with pytest.raises(TaskNotFoundError):
            _ = [event async for event in client.subscribe(pb.SubscribeToTaskRequest(id="none"))]
    await setting.stop()


async def test_a2a_subscribe_is_replay_and_then_live(agent) -> None:
    setting = Setting(*await pair(agent))
    async with Follower(setting.ours) as follower:
        stream = setting.client(follower).send_message(asking("wait"))
        first = await anext(stream)
        await stream.aclose()
    # The client goes away, and the task goes on meanwhile.
    await setting.alice.close()
    setting.ours = await (await agent("alice")).ensure_channel("tasks")
    request = pb.SubscribeToTaskRequest(id=first.task.id)
    async with Follower(setting.ours) as follower:
        client = setting.client(follower)
        seen = []
        async for event in client.subscribe(request):
            seen.append(event)
            if len(seen) == 3:
                assert not setting.executor.let.is_set()
                setting.executor.let.set()
        assert kinds(seen) == ALL
        # All of it again, when nobody serves any more.
        await setting.stop()
        assert kinds([event async for event in client.subscribe(request)]) == ALL


async def test_an_a2a_server_that_comes_back_answers_what_waited_and_that_alone(agent) -> None:
    setting = Setting(*await pair(agent))
    async with Follower(setting.ours) as follower:
        client = setting.client(follower)
        # This one is not answered, so that what comes after it is not acknowledged.
        waiting = client.send_message(asking("wait"))
        await anext(waiting)
        assert kinds([event async for event in client.send_message(asking("count"))]) == ALL
        await setting.stop()
        late = asyncio.ensure_future(anext(client.send_message(asking("late"))))
        while (await setting.theirs.info()).unacked < 3:
            await asyncio.sleep(0.02)
        setting.executor.let.set()
        setting.serve()
        assert (await late).HasField("task")
        while (await setting.theirs.info()).unacked:
            await asyncio.sleep(0.02)
    await setting.stop()
    # An answer is in the outbox before it is in the history.
    await setting.bob.flushed()
    ended = [json.loads(row.payload) for row in await setting.theirs.history(0, 1000) if row.own]
    assert len([answer for answer in ended if "event" not in answer]) == 3
    # Run once, and the one that was not answered once more.
    assert len(setting.executor.users) == 4
