"""Schema migrations (alembic), applied at start by `dicomnode.storage.upgrade`.

A new one: add a file to `versions`, its revision to `schema.REVISIONS`, and the change
to the tables of `schema`; the tests hold the three together.
"""
