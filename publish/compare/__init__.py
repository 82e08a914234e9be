"""How two models are related: a comparison tensor by tensor, with a verdict and its reasons."""
