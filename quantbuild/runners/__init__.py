"""One module a device runner, found by its name."""
