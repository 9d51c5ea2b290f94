"""Pull events instead of being called: take what comes, one JSON object a line, and end after a quiet while.

For a job that a scheduler starts: `cron_job.py [SECONDS OF QUIET [SECONDS IN ALL]]`. The exit code is 0 if all
went well, 1 if the stream failed, 2 if a gap was told and not closed, and 3 if it was never live.
"""

import json
import sys
import time

import aggstream

QUIET = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
IN_ALL = float(sys.argv[2]) if len(sys.argv) > 2 else 300.0

client = aggstream.Client()
events = client.events(aggstream.UserEvent, timeout=QUIET)  # before the start, so that nothing is missed
until = time.monotonic() + IN_ALL
try:
    with client:
        client.wait_until_live(timeout=QUIET)
        for event in events:
            print(json.dumps(event.raw, default=str), flush=True)
            if time.monotonic() > until:
                break
except aggstream.WaitTimeout as error:
    print(error, file=sys.stderr)
    sys.exit(3)
except aggstream.AggStreamError as error:
    print(error, file=sys.stderr)
    sys.exit(1)
counters = client.health().counters
sys.exit(2 if counters.gaps > counters.gaps_resolved else 0)
