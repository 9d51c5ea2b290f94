"""Events and orders in the tables of Django: storing, reading, deleting, and outages of the database."""
