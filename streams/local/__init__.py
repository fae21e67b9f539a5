"""A real Kafka and a real Redis on this machine, without Docker."""
