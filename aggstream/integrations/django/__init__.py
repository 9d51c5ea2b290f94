"""The user stream for a Django project. It runs in its own process, and stores events in the database.

To use it, add "aggstream.integrations.django" to `INSTALLED_APPS`, and set `AGGSTREAM`. Register handlers with
`on` in the file `agg_handlers.py` of an app. Then run `manage.py migrate` and `manage.py aggstream`.
"""

from aggstream.integrations.django._handlers import on

__all__ = ["on"]
