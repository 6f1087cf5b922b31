"""A stock SLIM agent (PyPI slim-bindings), driven line by line: JSON commands on standard input, JSON events on standard
output. Nothing in it knows the bridge: the same script runs against a stock SLIM node."""

import asyncio
import datetime
import json
import os
import sys

import slim_bindings as slim


def tell(event, **values):
    print(json.dumps({"event": event, **values}), flush=True)


def name(text):
    return slim.Name.from_string(text)


class Agent:
    def __init__(self):
        self.app = None
        self.connection = None
        self.session = None
        self.tasks = []

    async def start(self, endpoint, own, secret, state=None, token=None, ca=None):
        slim.initialize_with_defaults()
        self.service = slim.get_global_service()
        identity = own.split("/")[-1]
        provider = slim.IdentityProviderConfig.SHARED_SECRET(id=identity, data=secret)
        verifier = slim.IdentityVerifierConfig.SHARED_SECRET(id=identity, data=secret)
        if state:
            persistence = slim.PersistenceConfig(path=state, passphrase=None)
            self.app = await self.service.create_app_with_persistence_async(
                name(own), provider, verifier, slim.Direction.BIDIRECTIONAL, persistence
            )
        else:
            self.app = self.service.create_app(name(own), provider, verifier)
        config = slim.new_insecure_client_config(endpoint)
        if ca:
            config = slim.new_secure_client_config(endpoint)
            config.tls.ca_source = slim.CaSource.FILE(path=ca)
        if token:
            config.headers = {"authorization": f"Bearer {token}"}
        self.connection = await self.service.connect_async(config)
        await self.app.subscribe_async(self.app.name(), self.connection)
        tell("started", name=str(self.app.name()))

    async def node(self, endpoint, link=None, kind="peer", config=None):
        """A stock SLIM node; with `link`, one that has a link there."""
        if link:
            insecure = {"insecure": True}
            dataplane = {
                "servers": [{"endpoint": endpoint, "tls": insecure}],
                "clients": [{"endpoint": link, "tls": insecure, "connection_type": kind}],
            }
            # JSON is YAML.
            with open(config, "w") as file:
                json.dump({"services": {"slim/0": {"node_id": "stock-node", "dataplane": dataplane}}}, file)
            slim.initialize_from_config_with_error(config)
        else:
            slim.initialize_with_defaults()
            await slim.get_global_service().run_server_async(slim.new_insecure_server_config(endpoint))
        tell("serving", endpoint=endpoint)

    async def listen(self):
        async def wait():
            while True:
                session = await self.app.listen_for_session_async(None)
                self.hold(session)
                tell("session", destination=str(session.destination()))

        self.tasks.append(asyncio.create_task(wait()))
        tell("listening")

    def hold(self, session):
        self.session = session
        self.tasks.append(asyncio.create_task(self.receive(session)))

    async def receive(self, session):
        while True:
            try:
                message = await session.get_message_async(timeout=datetime.timedelta(seconds=3600))
                self.last = message.context
                tell("message", payload=message.payload.decode(), source=str(message.context.source_name))
            except Exception as error:
                text = str(error)
                tell("receive-error", error=text)
                if "closed" in text.lower() or "not found" in text.lower():
                    return
                await asyncio.sleep(0.05)

    async def create(self, to, kind="group", mls=True, retries=None, interval_ms=1000):
        group = kind == "group"
        config = slim.SessionConfig(
            session_type=slim.SessionType.GROUP if group else slim.SessionType.POINT_TO_POINT,
            max_retries=retries,
            interval=None if retries is None else datetime.timedelta(milliseconds=interval_ms),
            metadata={},
            mls_settings=slim.MlsSettings(
                header_integrity_validation_percent=100, max_seen_control_message_ids_size=None
            )
            if mls
            else None,
        )
        if not group:
            await self.app.set_route_async(name(to), self.connection)
        session = await self.app.create_session_async(config, name(to))
        await session.completion.wait_async()
        self.hold(session.session)
        tell("created", destination=str(session.session.destination()))

    async def invite(self, who):
        await self.app.set_route_async(name(who), self.connection)
        handle = await self.session.invite_async(name(who))
        await handle.wait_async()
        tell("invited", who=who)

    async def remove(self, who):
        handle = await self.session.remove_async(name(who))
        await handle.wait_async()
        tell("removed", who=who)

    async def send(self, first=0, count=1, text="m", wait=False, pause_ms=0):
        for number in range(first, first + count):
            handle = await self.session.publish_async(f"{text}{number}".encode(), None, None)
            if wait:
                await handle.wait_async()
            if pause_ms:
                await asyncio.sleep(pause_ms / 1000)
        tell("sent", first=first, count=count)

    async def reply(self, text):
        """To the sender of the last message alone."""
        await self.session.publish_to_async(self.last, text.encode(), None, None)
        tell("replied")

    async def restore(self):
        sessions = await self.app.restore_sessions_async(self.connection)
        for session in sessions:
            self.hold(session)
        tell("restored", count=len(sessions))

    async def participants(self):
        tell("participants", list=[str(one) for one in await self.session.participants_list_async()])

    async def exit(self):
        os._exit(0)


async def main(agent):
    slim.uniffi_set_event_loop(asyncio.get_running_loop())
    loop = asyncio.get_running_loop()
    running = set()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        do = command.pop("do")

        async def run(do=do, command=command):
            try:
                await getattr(agent, do)(**command)
            except Exception as error:
                tell("error", do=do, error=str(error))

        task = asyncio.create_task(run())
        running.add(task)
        task.add_done_callback(running.discard)
        if command.get("wait", True):
            await task
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(Agent()))
