"""An A2A agent that echoes, and its caller, over SLIM by PyPI's `slima2a`. Driven like `agent.py`."""

import asyncio

import httpx
import slim_bindings as slim
import slima2a
from a2a.client import minimal_agent_card
from a2a.helpers import new_text_message
from a2a.server.agent_execution import AgentExecutor
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.tasks import InMemoryTaskStore
from a2a.types.a2a_pb2 import AgentCapabilities, AgentCard, Role, SendMessageRequest
from agent import Agent, main, tell
from slima2a.client_transport import ClientConfig, MultiAgentClientFactory, slimrpc_channel_factory
from slima2a.handler import SRPCHandler
from slima2a.types.v1.a2a_pb2_slimrpc import add_A2AServiceServicer_to_server


class Echo(AgentExecutor):
    async def execute(self, context, event_queue):
        text = context.get_user_input()
        tell("called", text=text)
        await event_queue.enqueue_event(new_text_message(f"echo {text}", role=Role.ROLE_AGENT))

    async def cancel(self, context, event_queue):
        raise NotImplementedError


class A2a(Agent):
    async def connect(self, endpoint, own, secret):
        organization, namespace, service = own.split("/")
        _, self.app, self.name, self.connection = await slima2a.setup_slim_client(
            namespace=organization, group=namespace, name=service, slim_url=endpoint, secret=secret
        )
        tell("started", name=str(self.app.name()))

    async def echo(self):
        card = AgentCard(
            name="Echo",
            description="Returns what it is sent.",
            version="1",
            capabilities=AgentCapabilities(streaming=True),
            default_input_modes=["text"],
            default_output_modes=["text"],
        )
        handler = DefaultRequestHandler(agent_executor=Echo(), task_store=InMemoryTaskStore(), agent_card=card)
        server = slim.Server.new_with_connection(self.app, self.name, self.connection)
        add_A2AServiceServicer_to_server(SRPCHandler(card, handler), server)
        self.tasks.append(asyncio.create_task(server.serve_async()))
        tell("serving")

    async def ask(self, who, text, stream):
        async with httpx.AsyncClient() as http:
            config = ClientConfig(
                supported_protocol_bindings=["slimrpc"],
                streaming=stream,
                httpx_client=http,
                slimrpc_channel_factory=slimrpc_channel_factory(self.app, self.connection),
            )
            client = MultiAgentClientFactory(config).create(card=minimal_agent_card(who, ["slimrpc"]))
            request = SendMessageRequest(message=new_text_message(text, role=Role.ROLE_USER))
            async for answer in client.send_message(request=request):
                if answer.WhichOneof("payload") == "message":
                    for part in answer.message.parts:
                        tell("answer", text=part.text)


if __name__ == "__main__":
    asyncio.run(main(A2a()))
