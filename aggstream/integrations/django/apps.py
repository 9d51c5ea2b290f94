"""The Django app. The app does not start the stream, which runs only in the process of `manage.py aggstream`."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules


class AggStreamConfig(AppConfig):
    """The configuration of the app `aggstream.integrations.django`."""

    name = "aggstream.integrations.django"
    label = "aggstream"
    verbose_name = "AGG stream"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Import each app's `agg_handlers`, which registers the app's handlers."""
        from aggstream.integrations.django import checks  # noqa: F401, PLC0415  (the import registers the checks)

        autodiscover_modules("agg_handlers")
