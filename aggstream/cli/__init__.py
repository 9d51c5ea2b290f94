"""The command `aggstream`: a demo, the live stream, orders, the journal, and the simulator.

It imports what an extra brings (rich, the simulator) only in the commands that need it, so `aggstream listen`
works on a bare install.
"""

from aggstream.cli._main import main

__all__ = ["main"]
