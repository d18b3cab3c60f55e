"""The action cache and content store: a local folder, and any HTTP server that holds Bazel's layout."""
