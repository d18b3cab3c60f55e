"""One module a quantization scheme, found by its name."""
