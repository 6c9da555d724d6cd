"""What the product runs on: the embedded Kafka broker, compose files, deployment settings."""
