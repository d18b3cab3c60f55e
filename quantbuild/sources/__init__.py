"""One module a model source, found by its name."""
