"""The use cases: plain functions without a terminal, exported by `bulkbind` as its Python API."""
