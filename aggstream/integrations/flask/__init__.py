"""The user stream beside a Flask application: a process of its own, its events in a journal on the host's disk.

`agg = AggStream(app)`, the configuration `AGGSTREAM_…`, handlers registered with `agg.on`, and
`flask aggstream run`.
"""

from aggstream.integrations.flask._extension import AggStream

__all__ = ["AggStream"]
