"""Access to one Kafka cluster: its configuration, topics and offsets, reading ranges, and transactions."""
