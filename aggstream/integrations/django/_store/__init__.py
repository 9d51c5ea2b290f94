"""Stores, reads and deletes events and orders in Django's tables, and handles outages of the database."""
