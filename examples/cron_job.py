"""Pull events instead of being called: take what comes within a while, one JSON object a line, and end.

For a job that a scheduler starts. The exit code is 0 if all went well, and 2 if a gap was told meanwhile.
"""

import json
import sys

import aggstream

QUIET = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0

client = aggstream.Client()
events = client.events(timeout=QUIET)  # before the start, so that nothing is missed
with client:
    for event in events:
        if isinstance(event, aggstream.UserEvent):
            print(json.dumps(event.raw, default=str), flush=True)

sys.exit(2 if client.health().counters.gaps else 0)
