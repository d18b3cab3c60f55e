"""Nodes of a model's graph: what a user calls them, which ones a pattern means, which ones belong together."""
