"""What a raw GPT-NeoX checkpoint is: archive and pickle index, layouts, config, the state it carries."""
