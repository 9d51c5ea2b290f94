"""The project's settings. What `start.py` prepares comes from the environment, like AGGSTREAM_APP_ID."""

import os
from pathlib import Path

DIRECTORY = Path(os.environ["RECEIPTS_DIRECTORY"])

SECRET_KEY = os.environ["RECEIPTS_SECRET_KEY"]
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "aggstream.integrations.django",
    "receipts",
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DIRECTORY / "receipts.db",
        "OPTIONS": {"timeout": 20},  # the stream writes, and the workers
    }
}

AGGSTREAM = {"LEASE": 3.0}

# Files, so that nothing needs to be installed. Redis or RabbitMQ also keeps what a worker had begun when it was
# killed, which is what TASK_ACKS_LATE asks for.
CELERY_BROKER_URL = os.environ.get("CELERY_BROKER_URL", "filesystem://")
if CELERY_BROKER_URL == "filesystem://":
    CELERY_BROKER_TRANSPORT_OPTIONS = dict.fromkeys(
        ("data_folder_in", "data_folder_out", "control_folder"), str(DIRECTORY / "broker")
    )
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
