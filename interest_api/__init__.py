"""The read API over HTTP, and the metrics of every process."""
