"""The ``interest`` command and the wiring: the only place that chooses implementations."""
