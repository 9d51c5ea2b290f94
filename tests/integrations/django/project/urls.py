"""The project's pages."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from aggstream.integrations.django.views import events

urlpatterns = [path("admin/", admin.site.urls), path("events/", events)]
