"""What a trained model is asked: the held-out loss, and zero-, one- and few-shot tasks beside chance and baselines."""
