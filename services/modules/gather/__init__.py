"""Lists over all partitions: the partition that was asked asks the others, and merges what they answer in time."""
