"""The GPT-3 decoder as a plain nn.Module; no distributed code."""
