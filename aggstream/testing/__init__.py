"""Tools for tests of programs that use aggstream: bad networks, on demand.

A local AGG to test against is `aggstream.simulator`.
"""

from aggstream.testing._proxy import ChaosProxy, Faults

__all__ = ["ChaosProxy", "Faults"]
