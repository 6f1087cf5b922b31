"""A stock agent that serves and calls SLIMRPC, driven like `agent.py`."""

import asyncio
import datetime

import slim_bindings as slim
from agent import Agent, main, name, tell

SERVICE = "test.Echo"


class Unary(slim.UnaryUnaryHandler):
    async def handle(self, request, context):
        text = request.decode()
        tell("called", text=text)
        if text.startswith("slow"):
            # Longer than any caller of the tests waits.
            await asyncio.sleep(3600)
        return f"echo {text}".encode()


class Count(slim.UnaryStreamHandler):
    async def handle(self, request, context, sink):
        text = request.decode()
        tell("called", text=text)
        for number in range(int(text)):
            await sink.send_async(str(number).encode())
        await sink.close_async()


class Rpc(Agent):
    def __init__(self):
        super().__init__()
        self.channels = {}

    async def serve(self):
        server = slim.Server.new_with_connection(self.app, self.app.name(), self.connection)
        server.register_unary_unary(SERVICE, "Unary", Unary())
        server.register_unary_stream(SERVICE, "Count", Count())
        self.tasks.append(asyncio.create_task(server.serve_async()))
        tell("serving")

    def channel(self, to, new=False):
        # A channel keeps its session, also with a server that is gone.
        if new or to not in self.channels:
            self.channels[to] = slim.Channel.new_with_connection(self.app, name(to), self.connection)
        return self.channels[to]

    async def call(self, to, text, timeout_ms, new=False):
        timeout = datetime.timedelta(milliseconds=timeout_ms)
        try:
            answer = await self.channel(to, new).call_unary_async(SERVICE, "Unary", text.encode(), timeout, None)
            tell("answer", text=answer.decode())
        except slim.RpcError as error:
            tell("failed", code=error.code.name, error=str(error))

    async def count(self, to, count, timeout_ms):
        timeout = datetime.timedelta(milliseconds=timeout_ms)
        stream = await self.channel(to).call_unary_stream_async(SERVICE, "Count", str(count).encode(), timeout, None)
        while not (message := await stream.next_async()).is_end():
            if message.is_error():
                raise message[0]
            tell("item", text=message[0].decode())
        tell("counted")

    async def call_all(self, to, text, timeout_ms):
        """One request to a group of servers."""
        timeout = datetime.timedelta(milliseconds=timeout_ms)
        channel = slim.Channel.new_group_with_connection(self.app, [name(one) for one in to], self.connection)
        reader = await channel.call_multicast_unary_async(SERVICE, "Unary", text.encode(), timeout, None)
        while not (message := await reader.next_async()).is_end():
            if message.is_error():
                raise message.error
            tell("item", text=message.item.message.decode())
        tell("counted")


if __name__ == "__main__":
    asyncio.run(main(Rpc()))
