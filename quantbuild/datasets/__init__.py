"""One module a dataset loader, found by its name."""
