"""Kafka and Faust: topics, agents, chunked transport, checkpoint, dead letters, publishing."""
