"""The user stream in a Django project: a process beside the web workers, its events in the project's database.

`INSTALLED_APPS += ["aggstream.integrations.django"]`, one setting `AGGSTREAM`, handlers in each app's
`agg_handlers.py`, registered with `on`; `manage.py migrate` and `manage.py aggstream`.
"""

from aggstream.integrations.django._handlers import on

__all__ = ["on"]
