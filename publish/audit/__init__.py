"""What is wrong with a published suite, found from refs, digests, small files and safetensors headers.

Importing this package imports nothing else; huggingface_hub is imported when a client is first used.
"""
