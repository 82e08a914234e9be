"""Gates that a converted step must pass, GPT-NeoX's forward pass on GPT-NeoX's tensors, and statistics."""
