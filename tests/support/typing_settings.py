"""What the type checker takes for the settings: those of the tests' project, with the apps of the examples."""

from __future__ import annotations

import settings
from settings import *  # noqa: F403

INSTALLED_APPS = [*settings.INSTALLED_APPS, "orders", "receipts"]
ORDERS_MARKET = ""
ORDERS_RATE = 0.0
