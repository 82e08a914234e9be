"""GPT-NeoX to Hugging Face: name tables, merging, the plan, config, tokenizer, the streaming writer."""
