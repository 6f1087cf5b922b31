"""Events of an agent, for monitoring. State that matters after a crash is in the vault."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True)
class Event:
    """An event. An event without its own class has its name and its values only here."""

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
    """The session has ended. The agent reconnects, unless the program disconnected it."""

    @property
    def reason(self) -> str:
        """The reason, in words."""
        return str(self.data["reason"])


class Joined(_OfChannel):
    """This agent was added to a channel."""

    @property
    def by(self) -> str:
        """The agent that added it."""
        return str(self.data["by"])


class MemberAdded(_OfChannel):
    """An agent was added to a channel."""

    @property
    def agent(self) -> str:
        """The id of that agent."""
        return str(self.data["agent"])

    @property
    def by(self) -> str:
        """The author of the commit."""
        return str(self.data["by"])


class MemberRemoved(_OfChannel):
    """An agent was removed from a channel, or has left it."""

    @property
    def agent(self) -> str:
        """The id of that agent."""
        return str(self.data["agent"])

    @property
    def by(self) -> str:
        """The author of the commit."""
        return str(self.data["by"])


class MemberNotAdded(Event):
    """An agent that ``ensure_members`` is to add is not a member yet, and later messages no longer wait for it."""

    @property
    def channel(self) -> str:
        """The channel's id."""
        return str(self.data["channel"])

    @property
    def agent(self) -> str:
        """The id of that agent."""
        return str(self.data["agent"])


class Left(_OfChannel):
    """This agent is no longer in the channel."""


class Divergence(_OfChannel):
    """The relay showed this agent and another one different logs."""

    @property
    def author(self) -> str:
        """The author of the entry with the other digest."""
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
        """Its offset."""
        return int(self.data["offset"])

    @property
    def cause(self) -> str:
        """The cause: ``Invalid``, ``KeyUsed``, ``LaterEpoch`` and others, the names of Rust's ``UnreadableCause``."""
        return str(self.data["cause"])

    @property
    def reason(self) -> str:
        """The reason, in words."""
        return str(self.data["reason"])


class SendFailed(Event):
    """A message or change will not be delivered."""

    @property
    def channel(self) -> str:
        """The channel's id."""
        return str(self.data["channel"])

    @property
    def id(self) -> str:
        """The id of the message or change."""
        return str(self.data["frame_id"])


class EntriesLost(Event):
    """There are entries that this agent will never read."""


class OutOfSync(Event):
    """This agent cannot follow the group, and asks to be added again."""


class Rejoined(Event):
    """This agent follows the group again."""


class Lagged(Event):
    """This program lagged: the oldest events are gone."""

    @property
    def missed(self) -> int:
        """Number of missed events."""
        return int(self.data["missed"])


def read(text: str) -> Event:
    """Reads an event of the native half: a name, or an object of one name and its values."""
    value: str | dict[str, dict[str, Any]] = json.loads(text)
    name, data = (value, dict[str, Any]()) if isinstance(value, str) else next(iter(value.items()))
    kind = Event._classes.get(name, Event)  # pyright: ignore[reportPrivateUsage]
    return kind(name, data)
