"""Release a GPT-NeoX training run on the Hugging Face Hub: every step a branch, every branch verified."""

__version__ = "0.1.0"
