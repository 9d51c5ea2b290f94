"""The user stream for a Flask application. It runs in its own process, and stores events in a journal.

To use it, make `agg = AggStream(app)`, set the configuration `AGGSTREAM_…`, register handlers with `agg.on`, and
run `flask aggstream run`.
"""

from aggstream.integrations.flask._extension import AggStream

__all__ = ["AggStream"]
