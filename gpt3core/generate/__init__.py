"""Text from a trained model: a cache of keys and values, greedy choice and sampling, beam search."""
