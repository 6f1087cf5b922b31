"""Agents and channels against a real node."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path

import pytest
import skytale
import skytale.sync
from conftest import Node


async def pair(agent, label: str = "tasks"):
    """Two agents in one channel of the first."""
    alice, bob = await agent("alice"), await agent("bob")
    channel = await alice.ensure_channel(label)
    await bob.caught_up()
    await (await channel.add([bob.id])).delivered()
    return alice, bob, channel, await bob.join(label)


async def test_messages_come_in_order_and_once(agent) -> None:
    alice, bob, ours, theirs = await pair(agent)
    for n in range(50):
        await ours.send(json={"n": n})
    seen = []
    async for message in theirs.messages():
        assert message.author == alice.id and message.channel_id == theirs.id
        seen.append(message.json()["n"])
        await message.ack()
        if len(seen) == 50:
            break
    assert seen == list(range(50))
    assert [kept.json()["n"] for kept in await theirs.history()] == seen
    assert (await theirs.info()).unacked == 0
    assert sorted(await ours.members()) == sorted([alice.id, bob.id])


async def test_a_reply_names_what_it_answers_and_acknowledges_it(agent) -> None:
    _, bob, ours, theirs = await pair(agent)
    asked = await ours.send("what is it?")
    async for question in theirs.messages():
        assert question.content_type == "text/plain; charset=utf-8"
        await question.reply(json={"it": "this"})
        break
    assert (await theirs.info()).unacked == 0
    async for answer in ours.messages():
        assert (answer.reply_to, answer.author, answer.json()) == (asked.id, bob.id, {"it": "this"})
        assert answer.content_type == "application/json"
        break


async def test_the_same_key_is_one_message(agent) -> None:
    _, _, ours, theirs = await pair(agent)
    first, again = await ours.send("one", key="a"), await ours.send("one", key="a")
    assert first.id == again.id
    with pytest.raises(skytale.SkytaleError) as raised:
        await ours.send("another", key="a")
    assert raised.value.code == "SKY-5022" and raised.value.help and not raised.value.retryable
    # An answer under a key acknowledges whether or not it was sent before.
    async for message in theirs.messages():
        answers = [await message.reply("yes", key="b"), await message.reply("yes", key="b")]
        assert answers[0].id == answers[1].id
        break
    await answers[0].delivered()
    assert await answers[0].delivered() == await answers[1].delivered()


async def test_a_restart_goes_on_where_it_was(agent, node: Node, tmp_path: Path) -> None:
    alice, bob, ours, theirs = await pair(agent)
    for text in ("one", "two"):
        await (await ours.send(text)).delivered()
    async for message in theirs.messages():
        await message.ack()
        break
    await bob.close()
    for text in ("three", "four"):
        await ours.send(text)
    bob = await agent("bob")
    again = await bob.join("tasks", timeout=60)
    assert again.id == ours.id and (await alice.ensure_channel("tasks")).id == ours.id
    seen = []
    async for message in again.messages():
        seen.append(message.text())
        if len(seen) == 3:
            break
    assert seen == ["two", "three", "four"]


async def test_members_are_ensured_offline_and_again(agent) -> None:
    alice, bob = await agent("alice", connect=False), await agent("bob")
    channel = await alice.ensure_channel("tasks")
    await bob.caught_up()
    await channel.ensure_members([bob.id, alice.id])
    await channel.ensure_members([bob.id])
    await alice.connect()
    await bob.join("tasks")
    await channel.ensure_members([bob.id])

    async def both_are_members() -> None:
        # Bob may have joined before alice has taken her own commit in.
        while set(await channel.members()) != {alice.id, bob.id}:
            await asyncio.sleep(0.01)

    await asyncio.wait_for(both_are_members(), 60)


async def test_what_is_sent_offline_after_members_were_ensured_is_read_by_them(agent) -> None:
    alice, bob = await agent("alice", connect=False), await agent("bob")
    await bob.caught_up()
    channel = await alice.ensure_channel("tasks")
    await channel.ensure_members([bob.id])
    await channel.send("for bob")
    added, message = await channel.outbox(), None
    assert [(queued.kind, queued.payload) for queued in added] == [("internal", None), ("add", None), ("message", b"for bob")]
    await alice.connect()
    async for message in (await bob.join("tasks")).messages():
        break
    assert message is not None and message.text() == "for bob"


async def test_an_agent_that_cannot_be_added_holds_back_nothing_for_ever(agent) -> None:
    alice = await agent("alice", connect=False)
    channel = await alice.ensure_channel("tasks")
    await channel.ensure_members(["cd" * 32])
    sent = await channel.send("hello")
    # Whoever no longer wants it takes it back.
    await channel.remove(["cd" * 32])
    await alice.connect()
    assert await sent.delivered() is not None


async def test_a_request_gives_its_answer_and_goes_on_after_a_timeout_and_a_restart(agent) -> None:
    alice, bob, ours, theirs = await pair(agent)
    with pytest.raises(skytale.NoReply) as raised:
        await ours.request(json={"n": 1}, key="one", timeout=0)
    assert isinstance(raised.value, TimeoutError) and raised.value.code == "SKY-5025" and raised.value.retryable
    assert pickle.loads(pickle.dumps(raised.value)).help == raised.value.help
    await alice.close()
    async for question in theirs.messages():
        await question.reply(json={"n": 2})
        break
    alice = await agent("alice")
    ours = await alice.ensure_channel("tasks")
    answer = await ours.request(json={"n": 1}, key="one", timeout=60)
    assert answer.json() == {"n": 2} and answer.author == bob.id
    # It is a message like others, for whoever reads them.
    async for message in ours.messages():
        assert message.id == answer.id
        await message.ack()
        break
    assert (await ours.info()).unacked == 0
    assert len([kept for kept in await theirs.history() if not kept.own]) == 1, "it was sent once"


async def test_a_program_without_an_event_loop_makes_requests_too(agent, node: Node, tmp_path: Path) -> None:
    bob = await agent("bob")
    await bob.caught_up()

    def ask() -> object:
        with skytale.sync.Agent.open(tmp_path / "alice.vault", api_url=node.api_url, api_key=node.api_key) as alice:
            channel = alice.ensure_channel("tasks")
            channel.ensure_members([bob.id])
            return channel.request(json={"n": 3}, timeout=60).json()

    asking = asyncio.ensure_future(asyncio.to_thread(ask))
    async for question in (await bob.join("tasks")).messages():
        await question.reply(json=question.json()["n"] ** 2)
        break
    assert await asking == 9


async def test_the_outbox_shows_what_waits(agent) -> None:
    alice = await agent("alice", connect=False)
    channel = await alice.ensure_channel("alone")
    first = await channel.send("one", wait=True)
    await channel.send(json=2, reply_to=first.id)
    shown = [(queued.payload, queued.reply_to, queued.content_type) for queued in await channel.outbox()]
    assert shown[-2:] == [(b"one", None, "text/plain; charset=utf-8"), (b"2", first.id, "application/json")]


async def test_a_merged_stream_takes_in_channels_that_come_later(agent) -> None:
    alice, bob = await agent("alice"), await agent("bob")
    await bob.caught_up()
    seen: set[tuple[str, str]] = set()

    async def collect() -> None:
        async for message in bob.messages():
            seen.add((message.channel_id, message.text()))
            await message.ack()
            if len(seen) == 3:
                return

    collecting = asyncio.create_task(collect())
    expected = set()
    for number in range(3):
        channel = await alice.create_channel(f"room {number}")
        await channel.add([bob.id])
        await channel.send(f"hello {number}")
        expected.add((channel.id, f"hello {number}"))
    await collecting
    assert seen == expected


async def test_a_channel_pauses_while_too_much_is_not_acknowledged(agent) -> None:
    # More than the bound and what is read of a log at once.
    count, bound = 2_400, 200
    alice, bob = await agent("alice"), await agent("bob", unacknowledged_max=bound)
    ours = await alice.ensure_channel("tasks")
    await bob.caught_up()
    await (await ours.add([bob.id])).delivered()
    theirs = await bob.join("tasks")
    await bob.disconnect()
    for n in range(count):
        await ours.send(json=n)
    await alice.flushed()
    await bob.connect()
    messages = theirs.messages()
    seen = [await anext(messages) for _ in range(bound)]
    # Another channel goes on meanwhile, and what comes in it is behind all of this in time.
    other = await alice.ensure_channel("other")
    await (await other.add([bob.id])).delivered()
    await other.send("not paused")
    async for message in (await bob.join("other")).messages():
        assert message.text() == "not paused"
        break
    paused = (await theirs.info()).unacked
    assert bound <= paused < count
    while len(seen) < paused:
        seen.append(await anext(messages))
    waiting = asyncio.ensure_future(anext(messages))
    # Half of the bound is the most that it goes on with.
    await seen[-(bound // 2) - 1].ack()
    await asyncio.sleep(0)
    assert not waiting.done()
    await seen[-1].ack()
    seen.append(await waiting)
    while len(seen) < count:
        seen.append(await anext(messages))
        if len(seen) % 100 == 0:
            await seen[-1].ack()
    assert [message.json() for message in seen] == list(range(count))


async def test_messages_end_when_told_and_when_removed(agent) -> None:
    _, bob, ours, theirs = await pair(agent)
    until = asyncio.Event()
    asyncio.get_running_loop().call_soon(until.set)
    assert [message async for message in theirs.messages(until=until)] == []
    await ours.send("last")
    await ours.remove([bob.id])
    assert [message.text() async for message in theirs.messages()] == ["last"]
    # The end that is read with messages before it comes after them.
    assert [message.text() async for message in bob.messages(theirs)] == ["last"]
    with pytest.raises(skytale.ChannelLeft):
        await theirs.send("too late")


async def test_every_wait_can_be_cancelled(agent) -> None:
    alice = await agent("alice", connect=False)
    channel = await alice.ensure_channel("alone")
    sent = await channel.send("waits")
    messages = channel.messages()
    waits = [
        alice.connected,
        alice.caught_up,
        alice.flushed,
        channel.caught_up,
        sent.delivered,
        lambda: anext(messages),
        lambda: alice.join("never"),
    ]
    for wait in waits:
        waiting = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    with pytest.raises((TimeoutError, asyncio.TimeoutError)):
        await alice.join("never", timeout=0.01)
    # And it still works.
    assert [queued.kind for queued in await channel.outbox()][-1] == "message"
    assert (await channel.outbox())[-1].id == sent.id


async def test_a_wait_that_is_cancelled_loses_no_message(agent) -> None:
    _, _, ours, theirs = await pair(agent)
    messages, seen, cancelled = theirs.messages(), [], 0
    sending = asyncio.create_task(send_all(ours, 300))
    while len(seen) < 300:
        # Cancelled at any moment: also when the message is on its way to the event loop.
        waiting = asyncio.ensure_future(anext(messages))
        for _ in range(len(seen) % 7):
            await asyncio.sleep(0)
        if not waiting.done():
            waiting.cancel()
        try:
            message = await waiting
        except asyncio.CancelledError:
            cancelled += 1
            await asyncio.sleep(0.0002 * (cancelled % 5))
            if cancelled % 3:
                continue
            message = await anext(messages)
        assert message.json() == len(seen), "one was lost, or came twice"
        seen.append(message.json())
        await message.ack()
    await sending
    assert cancelled > 0


async def send_all(channel, count: int) -> None:
    for n in range(count):
        await channel.send(json=n)


async def test_a_key_that_is_not_taken_is_said_at_once(node: Node, tmp_path: Path) -> None:
    wrong = node.api_key[:-4] + ("aaaa" if not node.api_key.endswith("aaaa") else "bbbb")
    with pytest.raises(skytale.Unauthorized) as raised:
        await skytale.Agent.open(tmp_path / "a.vault", api_url=node.api_url, api_key=wrong)
    assert raised.value.code == "SKY-4002" and raised.value.help
    again = pickle.loads(pickle.dumps(raised.value))
    assert (type(again), again.code, str(again)) == (skytale.Unauthorized, "SKY-4002", str(raised.value))


async def test_events_reach_handlers(agent) -> None:
    alice, bob = await agent("alice"), await agent("bob")
    await bob.caught_up()
    added: asyncio.Future[skytale.MemberAdded] = asyncio.get_running_loop().create_future()
    alice.on(skytale.MemberAdded, added.set_result)
    channel = await alice.ensure_channel("tasks")
    await channel.add([bob.id])
    event = await added
    assert (event.agent, event.by, event.channel) == (bob.id, alice.id, channel.id)


async def test_a_closed_agent_says_so(agent) -> None:
    alice = await agent("alice")
    channel = await alice.ensure_channel("tasks")
    messages = channel.messages()
    waiting = asyncio.ensure_future(anext(messages))
    await asyncio.sleep(0)
    await alice.close()
    with pytest.raises(skytale.Closed):
        await waiting
    with pytest.raises(skytale.Closed):
        await channel.send("after")


@pytest.mark.parametrize(
    "arguments", [{}, {"payload": "x", "json": 1}, {"payload": "x", "content_type": "a\nb"}, {"payload": "x" * 2_000_000}]
)
async def test_what_cannot_be_sent_is_refused(agent, arguments) -> None:
    alice = await agent("alice", connect=False)
    channel = await alice.ensure_channel("alone")
    with pytest.raises((TypeError, skytale.SkytaleError)):
        await channel.send(**arguments)
    for wrong in ("", "no id", "ab" * 31):
        with pytest.raises(skytale.SkytaleError):
            await channel.add([wrong])
        with pytest.raises(skytale.SkytaleError):
            await alice.channel(wrong)
