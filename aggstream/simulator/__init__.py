"""A local AGG to develop and test against: its WebSocket, its REST API, and faults of both on demand.

```python
with Simulator() as simulator:
    tokens = simulator.sign_in()
    ...                             # connect to simulator.url, with simulator.app_id and simulator.origin
    simulator.place_order(scenario="partial")
    simulator.drop(abort=True)
```
"""

try:
    import aiohttp as _aiohttp  # noqa: F401
    import jwt as _jwt  # noqa: F401
except ImportError as error:
    raise ImportError("the simulator needs aiohttp and PyJWT: install 'aggstream[simulator]'") from error

from aggstream.simulator._counts import Books, Counts
from aggstream.simulator._order_in_play import OrderInPlay
from aggstream.simulator._playback import Playback
from aggstream.simulator._simulator import Simulator
from aggstream.simulator._tokens import SignedIn

__all__ = ["Books", "Counts", "OrderInPlay", "Playback", "SignedIn", "Simulator"]
