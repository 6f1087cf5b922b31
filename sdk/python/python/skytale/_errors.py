"""Exceptions. Each has a stable code, whether it is retryable, and a help text."""

from __future__ import annotations


class SkytaleError(Exception):
    """An operation failed.

    Attributes:
        code: ``SKY-`` and a number, the same in all languages (docs/error-codes.md).
        retryable: Whether the same call may succeed later.
        help: What to do about it.
    """

    code: str
    retryable: bool
    help: str

    def __init__(self, code: str, message: str, retryable: bool, help: str) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable
        self.help = help

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.code, str(self), self.retryable, self.help))


class Unauthorized(SkytaleError):
    """The API or a relay node does not accept the key or the token."""


class Closed(SkytaleError):
    """The agent is closed."""


class ChannelLeft(SkytaleError):
    """This agent is not in the channel: it has left, or was removed."""


class Offline(SkytaleError):
    """No relay node was reached in time."""


class VaultError(SkytaleError):
    """The vault cannot be opened, read or written."""


class SendFailed(SkytaleError):
    """A message will not be delivered."""


class NoReply(SkytaleError, TimeoutError):
    """No answer to a request in time. The request is not withdrawn: call again with the same key to keep waiting."""


_EXACT: dict[str, type[SkytaleError]] = {
    "SKY-5006": SkytaleError,
    "SKY-5007": ChannelLeft,
    "SKY-5009": Offline,
    "SKY-5015": Closed,
    "SKY-5050": Closed,
    "SKY-5025": NoReply,
    "SKY-5030": SendFailed,
    "SKY-4002": Unauthorized,
    "SKY-4003": Unauthorized,
    "SKY-4014": Unauthorized,
    "SKY-4016": Unauthorized,
    "SKY-4017": Unauthorized,
}
_VAULT = frozenset(f"SKY-{number}" for number in (5001, 5002, 5003, 5004, 5005, 5020, 5021, 5052))


def of(code: str, message: str, retryable: bool, help: str) -> SkytaleError:
    """Returns the exception of a code. The native half calls it."""
    kind = _EXACT.get(code)
    if kind is None:
        kind = VaultError if code in _VAULT else Unauthorized if code.startswith("SKY-30") else SkytaleError
    return kind(code, message, retryable, help)
