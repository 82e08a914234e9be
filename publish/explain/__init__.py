"""Which random state made a model's initial weights: they are drawn again, and every value is compared."""
