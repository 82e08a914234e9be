"""Everything that speaks to a Hub: the client, its rate limits, reads, and the transaction that publishes a branch.

Importing this package imports neither huggingface_hub nor an HTTP library; a Client does.
"""
