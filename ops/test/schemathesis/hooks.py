"""What the API asks of a request beyond its schema. A JSON schema cannot compare a value with the clock, with the path or
with the account that asks; each of these rules is in the field's description, and api/tests/it/boundaries.rs tests both of
its sides. A value that is well-formed and breaks such a rule is replaced here by one that keeps it; what is not well-formed
stays, so that the API has to refuse it.
"""

import ipaddress
import os
import re
import time
import uuid

import schemathesis

ORG = os.environ["SKYTALE_ORG"]
ADDRESS = re.compile(r"^(?:\[(.+)\]|([0-9.]+)):([0-9]+)$")


def reachable(address):
    """No agent can reach a node at port 0, nowhere in particular, or at a group."""
    match = isinstance(address, str) and ADDRESS.match(address)
    if not match:
        return address
    try:
        host = ipaddress.ip_address(match.group(1) or match.group(2))
    except ValueError:
        return address
    good = int(match.group(3)) and not host.is_unspecified and not host.is_multicast
    return address if good else "192.0.2.1:7601"


def create_key(case):
    # `expires_s` is in the future.
    expires_s = case.body.get("expires_s")
    if type(expires_s) is int and 0 <= expires_s < time.time() + 3600:
        case.body["expires_s"] = int(time.time()) + 3600


def name_channel(case):
    # A name begins with the account's org.
    name = case.body.get("name")
    if isinstance(name, str) and re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}(/[a-z0-9][a-z0-9._-]{0,62}){2}", name):
        case.body["name"] = "/".join([ORG, *name.split("/")[1:]])


def put_relay(case):
    # The endpoint in the body is the one in the path.
    both = case.body.get("endpoint"), case.path_parameters.get("endpoint")
    if all(isinstance(endpoint, str) and re.fullmatch("[0-9A-Fa-f]{64}", endpoint) for endpoint in both):
        case.body["endpoint"] = both[1]


def put_heartbeat(case):
    # Agents can reach each address, and each shard is there once.
    if isinstance(case.body.get("addresses"), list):
        case.body["addresses"] = [reachable(address) for address in case.body["addresses"]]
    load = case.body.get("load")
    if isinstance(load, dict) and isinstance(load.get("lag"), list):
        for shard, lag in enumerate(load["lag"]):
            if isinstance(lag, dict) and type(lag.get("shard")) is int and 0 <= lag["shard"] <= 65535:
                lag["shard"] = shard


def revoke_key(case):
    # Not the key of this run.
    if case.path_parameters.get("id") == os.environ["SKYTALE_API_KEY_ID"]:
        case.path_parameters["id"] = str(uuid.uuid4())


def revoke_enrolment(case):
    # Nor its enrolment.
    if case.path_parameters.get("id") == os.environ["SKYTALE_ENROLMENT_ID"]:
        case.path_parameters["id"] = str(uuid.uuid4())


BY_PATH = (revoke_key, revoke_enrolment)
RULES = {rule.__name__: rule for rule in (create_key, name_channel, put_relay, put_heartbeat, *BY_PATH)}


def whole(value):
    """Numbers are written without a fraction: 5, where a JSON schema takes 5.0 for an integer, too."""
    if isinstance(value, dict):
        return {name: whole(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [whole(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@schemathesis.hook
def before_call(context, case, kwargs):
    if isinstance(case.body, dict):
        case.body = whole(case.body)
    rule = RULES.get(case.operation.definition.raw.get("operationId"))
    if rule and (rule in BY_PATH or isinstance(case.body, dict)):
        rule(case)
