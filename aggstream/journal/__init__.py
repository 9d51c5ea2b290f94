"""A durable log of the user's events in one SQLite file: there before their handlers run, and after a crash.

An event is `pending` from when it is stored until its handlers have finished; then it is `done`, and kept for a
while so that repeats are told. One whose handlers failed too often is `dead`: set aside for a person to look at.

`Journal` is for the one stream that owns the file; `JournalReader`, `retry` and `replay` are for anybody else.
`EventStore` is what a stream needs of it, so another place can be as good.
"""

from typing import TYPE_CHECKING

from aggstream._base.lazy import lazy
from aggstream.journal._options import JournalOptions, as_fleet_store, as_store
from aggstream.journal._store import EventStore, FleetStore, OpensFleetStore, OpensStore, Part, StoreMemory
from aggstream.journal._store_options import StoreOptions

if TYPE_CHECKING:
    from aggstream.journal._journal import Journal
    from aggstream.journal._stored import DECODERS, JournalCounts, JournalState, StoredEvent
    from aggstream.journal._tools import JournalReader, StoredAccount, replay, retry

__all__ = [
    "DECODERS",
    "EventStore",
    "FleetStore",
    "Journal",
    "JournalCounts",
    "JournalOptions",
    "JournalReader",
    "JournalState",
    "OpensFleetStore",
    "OpensStore",
    "Part",
    "StoreMemory",
    "StoreOptions",
    "StoredAccount",
    "StoredEvent",
    "as_fleet_store",
    "as_store",
    "replay",
    "retry",
]

# They load a database, which a stream without a journal does not need.
__getattr__, __dir__ = lazy(
    __name__,
    {
        "_journal": ("Journal",),
        "_stored": ("DECODERS", "JournalCounts", "JournalState", "StoredEvent"),
        "_tools": ("JournalReader", "StoredAccount", "replay", "retry"),
    },
)
