"""quantbuild: a build system for on-device models."""

__version__ = "0.1.0"
