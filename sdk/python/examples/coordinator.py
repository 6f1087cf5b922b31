"""Gives tasks to workers, and collects their answers: python coordinator.py 60 WORKER_ID WORKER_ID ..."""

import asyncio
import sys

import skytale


async def coordinator(count: int, workers: list[str]) -> None:
    async with skytale.Agent.from_env("coordinator.vault") as agent:
        agent.on(skytale.MemberAdded, lambda event: print("added", event.agent[:16], flush=True))
        agent.on(skytale.Divergence, lambda event: print("DIVERGENCE", event.channel, event.offset))
        tasks = await agent.ensure_channel("tasks")
        missing = set(workers) - set(await tasks.members())
        if missing:
            # Who is added reads what is sent from then on.
            await (await tasks.add(missing)).delivered()
        sent: dict[str, int] = {}
        for n in range(count):
            # The same key is sent once, whatever happens to this process.
            message = await tasks.send(json={"to": workers[n % len(workers)], "n": n}, key=f"task-{n}")
            sent[message.id] = n
        results: dict[int, int] = {}
        async for answer in agent.messages(tasks):
            if answer.reply_to in sent:
                results[sent[answer.reply_to]] = answer.json()["value"]
            if len(results) == count:
                break
        assert all(value == n * n for n, value in results.items())
        print(f"{len(results)} of {count}", flush=True)


if __name__ == "__main__":
    try:
        asyncio.run(coordinator(int(sys.argv[1]), sys.argv[2:]))
    except skytale.SkytaleError as error:
        raise SystemExit(f"{error.code}: {error} ({error.help})") from error
