"""A project as users have one. What differs from test to test comes from the environment."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import aggstream

BASE_DIR = Path(__file__).parent
SECRET_KEY = "not-a-secret"
ALLOWED_HOSTS = ["*"]
USE_TZ = os.environ.get("SHOP_USE_TZ", "yes") == "yes"
ROOT_URLCONF = "urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "static/"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "aggstream.integrations.django",
    "shop",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DATABASES: dict[str, Any] = {
    "default": json.loads(
        os.environ.get("SHOP_DATABASE", '{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}')
    )
}
AGGSTREAM: dict[str, Any] = {
    "TOKEN": "shop.agg.token",
    "USER_ID": "shop.agg.user_id",
    "LEASE": 1.0,
    "MAX_ATTEMPTS": 2,
    "RETRY_DELAY": 0.05,
    "OPTIONS": {
        "reconnect": aggstream.ReconnectPolicy(initial=0.05, maximum=0.2, healthy_after=0.05),
        "catch_up_timeout": 5.0,
        **json.loads(os.environ.get("SHOP_OPTIONS", "{}")),
    },
    **json.loads(os.environ.get("SHOP_AGGSTREAM", "{}")),
}
