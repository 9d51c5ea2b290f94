"""Stay signed in for longer than an access token lives, across restarts of the program.

The refresh token is in a file that only you may read. Each use buys a new one, which is stored there before it
is used. Give the file's name as the argument; put the first refresh token into it as {"refresh_token": "..."}.
"""

import json
import os
import pathlib
import sys

import aggstream

store = pathlib.Path(sys.argv[1])


def save(pair: aggstream.TokenPair) -> None:
    """Replace the file in one step, so that a crash leaves the old or the new pair, and never half of one."""
    new = store.with_suffix(".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w") as file:
        json.dump({"access_token": pair.access_token, "refresh_token": pair.refresh_token}, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(store)


stored = json.loads(store.read_text())
tokens = aggstream.RefreshingToken(stored["refresh_token"], access_token=stored.get("access_token"), save=save)
client = aggstream.Client(token=tokens)


@client.on("token_refreshed")
def refreshed(event: aggstream.TokenRefreshed) -> None:
    print(f"signed in until {event.expires_at}", flush=True)


@client.on(aggstream.UserEvent)
def show(event: aggstream.UserEvent) -> None:
    print(event, flush=True)


sys.exit(client.run())
