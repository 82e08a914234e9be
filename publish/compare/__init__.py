"""Two models, tensor by tensor: what is equal, how far apart the rest is, and what that says of their origin."""
