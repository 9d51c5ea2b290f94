"""The handle of a play that runs in the background."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class Playback:
    """A play in the background, as `Simulator.play` returns it.

    Every method may be called in any thread but the simulator's own.

    Attributes:
        emitted: events that the play has emitted so far.
    """

    def __init__(self) -> None:
        self.emitted = 0  # written by the simulator's thread alone
        self._finished = threading.Event()
        self._stop: Callable[[], object]

    @property
    def done(self) -> bool:
        """Whether the play has come to its end, or was cancelled."""
        return self._finished.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end of the play.

        Args:
            timeout: seconds; None waits for as long as it takes.

        Returns:
            Whether the play has ended.
        """
        return self._finished.wait(timeout)

    def cancel(self) -> None:
        """End the play; orders under way stay as they are. `emitted` is final when this returns."""
        self.stop()
        self._finished.wait()

    def stop(self) -> None:
        """Ask the play to end, without waiting for it. Safe in any thread, the simulator's as well."""
        # A closed loop has ended its tasks already.
        with suppress(RuntimeError):
            self._stop()

    def begin(self, play: Coroutine[None, None, None]) -> None:
        """Run the play as a task of the loop that calls this. For the simulator alone."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(play)
        task.add_done_callback(lambda _: self._finished.set())
        self._stop = lambda: loop.call_soon_threadsafe(task.cancel)
