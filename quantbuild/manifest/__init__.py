"""Manifests: TOML in, validated data out, every error at once."""
