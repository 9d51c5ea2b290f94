"""Kill a Django project's stream, standby, web workers, database and network, and see that it misses nothing.

    python tests/scripts/kill_web.py --kills 60 --seed 1 [--database sqlite | postgres | mariadb]

Orders run all the while, and a page reads live events through four web workers. Prints a summary as JSON. The exit
code is 1 if a promise was broken; then the directory is kept, with what the processes said.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import sys
import tempfile

TESTS = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(TESTS), str(TESTS / "support"), str(TESTS / "integrations" / "django" / "project")]
os.environ["DJANGO_SETTINGS_MODULE"] = "settings"

import django  # noqa: E402  (its settings have to be named first)
import reaper  # noqa: E402
from integrations.django.databases import create, migrate, point_at, sqlite  # noqa: E402
from integrations.servers import MariaDB, Postgres  # noqa: E402

SERVERS = {"postgres": Postgres, "mariadb": MariaDB, "sqlite": None}


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill a Django project's parts, and see that it misses nothing.")
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database", choices=SERVERS, default="postgres")
    options = parser.parse_args()
    reaper.begin()
    django.setup()
    from integrations.django.web_kills import Violation, WebKills

    kind, directory = SERVERS[options.database], pathlib.Path(tempfile.mkdtemp(prefix="kill-web-"))
    with contextlib.ExitStack() as stack:
        server, database = None, sqlite(directory / "shop.db")
        if kind is not None:
            if (why_not := kind.why_not()) is not None:
                parser.error(why_not)
            server = kind()
            stack.callback(server.remove)
            create(server, "shop")
            database = server.config("shop")
        migrate(database)
        point_at(database)
        kills = WebKills(stack, directory, database, server, seed=options.seed, kills=options.kills)
        try:
            summary = kills.run()
        except Violation as violation:
            summary = {**vars(options), "problems": [*kills.problems, str(violation)]}
    if summary["problems"]:
        summary["directory"] = str(directory)
    else:
        shutil.rmtree(directory)
    sys.stdout.write(json.dumps(summary) + "\n")
    return 1 if summary["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
