"""Heavy work for each order that is filled, in Celery's workers."""

from receipts.celery import app

__all__ = ["app"]
