"""What a release looks like on a Hub, and how a branch gets there: manifest, transaction, status.

Importing this package imports nothing else.
"""
