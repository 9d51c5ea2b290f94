"""What the system may refuse at any time: descriptors, memory, address families. What it means, and what to do."""

from __future__ import annotations

import errno
import os

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


def why_no_descriptors() -> str | None:
    """Return in words why no file can be opened at this moment; None if one can be."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return remedy_for(error)
    return None
