"""Tools for testing programs that use aggstream: `ChaosProxy` makes a network fail on demand.

`aggstream.simulator` is a local AGG to test against.
"""

from aggstream.testing._proxy import ChaosProxy, Faults

__all__ = ["ChaosProxy", "Faults"]
