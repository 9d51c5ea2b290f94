"""The handle of a play in the background."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class Playback:
    """The handle of a play in the background. `Simulator.play` returns it.

    Every thread except the simulator's own may call the methods.

    Attributes:
        emitted: the number of events that the play has emitted so far.
    """

    def __init__(self) -> None:
        self.emitted = 0  # only the simulator's thread writes it
        self._finished = threading.Event()
        self._stop: Callable[[], object]

    @property
    def done(self) -> bool:
        """True once the play has ended or was cancelled."""
        return self._finished.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the play has ended.

        Args:
            timeout: the seconds to wait at most; None: no limit.

        Returns:
            True if the play has ended, False if the time ran out.
        """
        return self._finished.wait(timeout)

    def cancel(self) -> None:
        """End the play, and return once it has ended. Its unfinished orders stay as they are."""
        self.stop()
        self._finished.wait()

    def stop(self) -> None:
        """Ask the play to end, and return at once. Every thread may call this, also the simulator's own."""
        # A closed loop raises, and its tasks have ended already.
        with suppress(RuntimeError):
            self._stop()

    def begin(self, play: Coroutine[None, None, None]) -> None:
        """Run the play as a task of the running event loop. Only the simulator calls this."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(play)
        task.add_done_callback(lambda _: self._finished.set())
        self._stop = lambda: loop.call_soon_threadsafe(task.cancel)
