"""What the system may refuse at any time: descriptors, memory, address families. What it means, and what to do."""

from __future__ import annotations

import errno
import os
import pathlib

_REMEDIES = {
    errno.EMFILE: "this process has no file descriptors left: raise its limit (ulimit -n), or close files",
    errno.ENFILE: "the system has no file descriptors left (fs.file-max)",
    errno.EAFNOSUPPORT: "the system, or a restriction of this service, does not allow this kind of address",
    errno.ENOBUFS: "the system has no memory left for sockets",
    errno.ENOMEM: "the system has no memory left",
    errno.ENOSPC: "the system has no room left for what is to be watched (fs.epoll.max_user_watches)",
    errno.EADDRNOTAVAIL: "no address or port of this machine is left for the connection",
}


def remedy_for(error: BaseException) -> str | None:
    """Return in words which resource the system has refused, and what to do; None if it is none of these."""
    if isinstance(error, MemoryError):
        return _REMEDIES[errno.ENOMEM]
    return _REMEDIES.get(error.errno or 0) if isinstance(error, OSError) else None


def descriptors_left(reserve: int = 64) -> int | None:
    """Return how many more descriptors this process may open, but for a reserve; None if the system does not say.

    Args:
        reserve: how many are left for files, databases, and connections of other parts of the program.
    """
    try:
        import resource  # noqa: PLC0415  (not on each system)

        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = sum(1 for _ in pathlib.Path("/proc/self/fd").iterdir())
    except (ImportError, OSError):
        return None
    return None if most == resource.RLIM_INFINITY else most - used - reserve


def why_no_descriptors() -> str | None:
    """Return in words why no file can be opened at this moment; None if one can be."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return remedy_for(error)
    return None
