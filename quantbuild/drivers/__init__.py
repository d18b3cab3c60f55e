"""Drivers: pure code that makes one step out of others, which it submits and waits for without holding a worker.

A driver is a module with `drive(step, make, root)`, and the `ACTIONS` and `TOOLS` of all that this may have made;
`BY_METRIC` says whether the model's metric has a say. The steps it has made are no tasks, but have keys, records and
cache entries as every step has: nothing is tried twice.

The drivers are `auto` and `mixed`; the other modules are what these are made of, and import neither.
"""
