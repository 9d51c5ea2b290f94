"""The project's settings. What `start.py` prepares comes from the environment, like AGGSTREAM_APP_ID."""

import functools
import os
from typing import Any

SECRET_KEY = os.environ["ORDERS_SECRET_KEY"]
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
USE_TZ = True
TIME_ZONE = "UTC"
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "static/"
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "page"
LOGOUT_REDIRECT_URL = "login"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "aggstream.integrations.django",
    "orders",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",  # the style and the script, without a web server in front
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
WHITENOISE_USE_FINDERS = True
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
            ]
        },
    }
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["ORDERS_DATABASE"],
        "OPTIONS": {"timeout": 20},  # two streams write, and the web server
    }
}

AGGSTREAM: dict[str, Any] = {
    # An account has a stream of its own, in a process of its own: `manage.py aggstream --account trader1`.
    "ACCOUNTS": {
        name: {"TOKEN": functools.partial(os.environ.__getitem__, f"ORDERS_TOKEN_{name.upper()}")}
        for name in ("trader1", "trader2")
    },
    "USER_ID": "orders.accounts.user_id",
    "LEASE": 3.0,  # who takes over from a stream that was killed need not wait for long
    "EVENTS_FOR": 10.0,
}

ORDERS_MARKET = os.environ["ORDERS_MARKET"]
"""Where the simulator takes orders."""
ORDERS_RATE = float(os.environ["ORDERS_RATE"])
"""Events a second of an order that is placed here."""
