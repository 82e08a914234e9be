"""A Hugging Face Hub on loopback: the Hub's protocol over bare git repositories and LFS objects in a folder.

It needs the extra ``rehearsal``. :class:`publish.rehearsal.server.RehearsalHub` starts it.
"""
