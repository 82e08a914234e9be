"""The one door to the network: endpoint, client, quotas, refs and trees, range reads.

Importing this package imports nothing else; huggingface_hub is imported when a client is first used.
"""
