"""Text to batches: sources, tokenizer, token shards, and a loader whose every batch is a function of its number."""
