"""The second driver: librdkafka (`confluent-kafka`) reads and writes what an owner reads and writes.

Behind the same ports as aiokafka, and for the same log: a ledger of one driver fences one of the
other. The group, the topics, single records and the questions where a partition begins and ends
stay with aiokafka. What this costs and what it gains: docs/design.md, "Drivers".
"""
