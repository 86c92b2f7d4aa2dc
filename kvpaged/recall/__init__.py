"""The small trained "recall" model: its language, its tokenizer, its schooling and its weights."""
