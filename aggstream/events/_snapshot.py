"""Events that are made of an answer of REST, and are no messages of the stream."""

from __future__ import annotations

from typing import ClassVar

import attrs

from aggstream.events._base import lifecycle
from aggstream.events._records import Balances
from aggstream.events._user import UserEvent


@lifecycle
@attrs.frozen(kw_only=True, repr=False)
class BalanceSnapshot(UserEvent):
    """The balances as the REST API tells them, because a `balance_update` may have been missed.

    They are not those of a `balance_update`: the API tells cash by token and balances by venue, in units that are
    not public in full. `timestamp` is when it was read, by this machine's clock.
    """

    TYPE: ClassVar[str] = "balance_snapshot"

    balances: Balances
