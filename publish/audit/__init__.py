"""Audits a published suite: what is wrong with it, by refs, digests, small files and safetensors headers.

Importing this package imports nothing else; huggingface_hub is imported when a client is first used.
"""
