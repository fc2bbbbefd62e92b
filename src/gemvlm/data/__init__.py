"""Shards and episodes to batches: conversation, frames, targets, collation and the stream that training reads."""
