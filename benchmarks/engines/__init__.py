"""Build engines on one pipeline: what each does again, and what becomes of it when things go wrong."""
