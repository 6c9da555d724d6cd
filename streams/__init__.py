"""What flows: records, topics, codec, log kernel, matching, correlation, and the bus that users import."""
