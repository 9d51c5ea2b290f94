"""The app. It starts nothing: the stream runs in the process of `manage.py aggstream` alone."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules


class AggStreamConfig(AppConfig):
    """`aggstream.integrations.django` in INSTALLED_APPS."""

    name = "aggstream.integrations.django"
    label = "aggstream"
    verbose_name = "AGG stream"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Let the apps register their handlers."""
        from aggstream.integrations.django import checks  # noqa: F401, PLC0415  (registers them)

        autodiscover_modules("agg_handlers")
