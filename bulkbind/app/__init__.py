"""The use cases: plain functions without a terminal. `bulkbind` offers them as its Python API."""
