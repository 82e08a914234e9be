"""Which random state made these initial weights: recomputed from seed, order and generator, proven by equality."""
