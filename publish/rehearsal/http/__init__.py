"""What is common to all requests: routes, counts, quotas, faults, and the context that a handler is given."""
