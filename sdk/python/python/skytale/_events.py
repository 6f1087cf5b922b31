"""Events: what happened to an agent, for watching. What matters after a crash is in the vault."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True)
class Event:
    """Something that happened. An event without a class of its own has its name and its values here alone."""

    name: str
    data: dict[str, Any] = field(repr=False)

    _classes: ClassVar[dict[str, type[Event]]] = {}

    def __init_subclass__(cls) -> None:
        Event._classes[cls.__name__] = cls


@dataclass(frozen=True)
class _OfChannel(Event):
    @property
    def channel(self) -> str:
        """The channel's id."""
        return str(self.data["channel"])

    @property
    def offset(self) -> int:
        """The offset of the entry."""
        return int(self.data["offset"])


class Connected(Event):
    """A session with a relay node has started."""


class Disconnected(Event):
    """The session has ended. Another one is tried, unless the agent was asked to disconnect."""

    @property
    def reason(self) -> str:
        """Why, in words."""
        return str(self.data["reason"])


class Joined(_OfChannel):
    """This agent was added to a channel."""

    @property
    def by(self) -> str:
        """Who added it."""
        return str(self.data["by"])


class MemberAdded(_OfChannel):
    """An agent was added to a channel."""

    @property
    def agent(self) -> str:
        """Whom."""
        return str(self.data["agent"])

    @property
    def by(self) -> str:
        """Who added it."""
        return str(self.data["by"])


class MemberRemoved(_OfChannel):
    """An agent was removed from a channel, or has left it."""

    @property
    def agent(self) -> str:
        """Whom."""
        return str(self.data["agent"])

    @property
    def by(self) -> str:
        """Who committed it."""
        return str(self.data["by"])


class MemberNotAdded(Event):
    """An agent that ``ensure_members`` was to add is no member yet, and what was sent after that goes out without it."""

    @property
    def channel(self) -> str:
        """The channel's id."""
        return str(self.data["channel"])

    @property
    def agent(self) -> str:
        """Whom."""
        return str(self.data["agent"])


class Left(_OfChannel):
    """This agent is in the channel no longer."""


class Divergence(_OfChannel):
    """The relay showed this agent and another one different logs."""

    @property
    def author(self) -> str:
        """Whose entry said so."""
        return str(self.data["author"])


class EntryUnreadable(Event):
    """An entry cannot be read, and never will be. It is recorded."""

    @property
    def channel(self) -> str | None:
        """The channel's id; ``None`` is the agent's own log."""
        channel = self.data["channel"]
        return None if channel is None else str(channel)

    @property
    def offset(self) -> int:
        """Where it is."""
        return int(self.data["offset"])

    @property
    def cause(self) -> str:
        """Why: ``Invalid``, ``KeyUsed``, ``LaterEpoch`` and others, as Rust's ``UnreadableCause`` names them."""
        return str(self.data["cause"])

    @property
    def reason(self) -> str:
        """Why, in words."""
        return str(self.data["reason"])


class SendFailed(Event):
    """Something that was sent will not be delivered."""

    @property
    def channel(self) -> str:
        """The channel's id."""
        return str(self.data["channel"])

    @property
    def id(self) -> str:
        """The id of what was sent."""
        return str(self.data["frame_id"])


class EntriesLost(Event):
    """Entries that this agent will never read."""


class OutOfSync(Event):
    """This agent cannot follow the group, and asks to be added again."""


class Rejoined(Event):
    """This agent follows the group again."""


class Lagged(Event):
    """This program was too slow: the oldest events are gone."""

    @property
    def missed(self) -> int:
        """How many."""
        return int(self.data["missed"])


def read(text: str) -> Event:
    """An event as the native half gives it: a name, or an object of one name and its values."""
    value: str | dict[str, dict[str, Any]] = json.loads(text)
    name, data = (value, dict[str, Any]()) if isinstance(value, str) else next(iter(value.items()))
    kind = Event._classes.get(name, Event)  # pyright: ignore[reportPrivateUsage]
    return kind(name, data)
