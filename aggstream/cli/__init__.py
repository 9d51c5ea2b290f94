"""The command `aggstream`: a demo, the live stream, orders, the journal, and the simulator.

Only the commands that need packages of an extra (rich, aiohttp, PyJWT) import them. So `aggstream listen` works
without any extra.
"""

from aggstream.cli._main import main

__all__ = ["main"]
