"""One Kafka cluster: configuration of clients, topics, offsets, reading of offset ranges, and transactions."""
