"""Commands of a session to its owner, to put something on the wire."""

from __future__ import annotations

import json
from typing import TypeAlias

import attrs

from aggstream._base.secret import Secret


@attrs.frozen
class Authenticate:
    """Send `{"action": "authenticate", "token": …}`."""

    token: Secret

    def text(self) -> str:
        """Return the message."""
        return json.dumps({"action": "authenticate", "token": self.token.reveal()})


@attrs.frozen
class Ping:
    """Send a WebSocket ping."""


@attrs.frozen
class CloseFrame:
    """Send a WebSocket close frame; the session waits for the peer's."""

    code: int
    reason: str = ""


Command: TypeAlias = "Authenticate | Ping | CloseFrame"
