"""One module an action: what a worker does for one step."""
