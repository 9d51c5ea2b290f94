"""Where code is, or was when it failed: files, lines and functions, and nothing of what variables hold."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from pathlib import Path
from types import FrameType

from aggstream._base.greenlets import frame_of

_PACKAGE = Path(__file__).parents[1]
_INTERPRETER = Path(os.__file__).parent
_INSTALLED = {"site-packages", "dist-packages"}


def stack_of(thread: threading.Thread) -> str:
    """Return where a thread is, as a traceback shows it, without the frames that our threads begin with."""
    frame = None if thread.ident is None else sys._current_frames().get(thread.ident)  # noqa: SLF001  (documented)
    frame = frame or frame_of(thread)
    if frame is None:
        return "  its end\n"
    frames = traceback.extract_stack(frame)
    theirs = next((at for at, found in enumerate(frames) if not _is_a_beginning(found.filename)), 0)
    return "".join(traceback.format_list(frames[theirs:]))


def place_of(error: BaseException) -> str:
    """Return in one short line where a user's function failed: the line of their own code, if it got there."""
    frames = [
        (frame, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if not _is_ours(frame.f_code.co_filename)
    ]
    own = [(frame, line) for frame, line in frames if _is_own(frame.f_code.co_filename)]
    return _named(*(own or frames)[-1]) if frames else "an unknown place"


def trail_of(error: BaseException) -> str:
    """Return all places on the way to an error, a line each; the error's own words are not in it."""
    return "\n".join(f"  {_named(frame, line)}" for frame, line in traceback.walk_tb(error.__traceback__))


def _is_a_beginning(file: str) -> bool:
    return file == threading.__file__ or _is_ours(file)


def _is_ours(file: str) -> bool:
    return Path(file).is_relative_to(_PACKAGE)


def _is_own(file: str) -> bool:
    """Return True if a file is the program's, and neither the interpreter's nor an installed package's."""
    path = Path(file)
    return not (file.startswith("<frozen") or path.is_relative_to(_INTERPRETER) or _INSTALLED & set(path.parts))


def _named(frame: FrameType, line: int) -> str:
    code = frame.f_code
    return ascii(f"{code.co_filename}:{line} in {code.co_name}")[1:-1]
