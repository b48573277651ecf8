"""What one GPT-3 run is and how it trains: specification, costs, store, data, model, training, evaluation."""
