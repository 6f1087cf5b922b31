"""A worker of a task queue: squares numbers. Kill it and start it again: no task is lost or answered twice."""

import asyncio
import sys

import skytale


async def worker(name: str) -> None:
    # SKYTALE_API_URL, SKYTALE_API_KEY; the vault's key is made beside the vault
    async with skytale.Agent.from_env(f"{name}.vault") as agent:
        print(agent.id, flush=True)
        # The first channel that somebody adds this agent to; after a restart the same at once.
        async with await agent.join("tasks") as tasks:
            async for message in tasks.messages():
                task = message.json()
                # Other workers' answers are in the channel, too.
                if task.get("to") == agent.id:
                    # The answer and the acknowledgement are one transaction.
                    await message.reply(json={"value": task["n"] ** 2})
                else:
                    await message.ack()


if __name__ == "__main__":
    try:
        asyncio.run(worker(sys.argv[1]))
    except KeyboardInterrupt:
        pass
    except skytale.SkytaleError as error:
        raise SystemExit(f"{error.code}: {error} ({error.help})") from error
