"""Raw data to shards: sources, questions, and what keeps both honest."""
