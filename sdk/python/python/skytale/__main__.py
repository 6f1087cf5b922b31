"""``python -m skytale`` prints two programs to paste: a first message between two agents."""

from __future__ import annotations

BOB = """\
import asyncio
import skytale


async def main() -> None:
    async with skytale.Agent.from_env("bob.vault") as agent:
        print("python alice.py", agent.id, flush=True)
        channel = await agent.join("hello")
        async for message in channel.messages():
            print(message.text(), flush=True)
            await message.reply("hello, Alice")


asyncio.run(main())
"""

ALICE = """\
import asyncio
import sys
import skytale


async def main(bob: str) -> None:
    async with skytale.Agent.from_env("alice.vault") as agent:
        channel = await agent.ensure_channel("hello")
        if bob not in await channel.members():
            await (await channel.add([bob])).delivered()
        await channel.send("hello, Bob")
        async for message in channel.messages():
            print(message.text(), flush=True)
            await message.ack()
            break


asyncio.run(main(sys.argv[1]))
"""

TEXT = f"""\
# `skytale dev` prints two export lines. Paste them into two terminals. In the first one, Bob; he prints the line for the second:
cat >bob.py <<'END'
{BOB}END
python bob.py

# In the second one, Alice, and then the line that Bob printed:
cat >alice.py <<'END'
{ALICE}END
"""

if __name__ == "__main__":
    print(TEXT, end="")
