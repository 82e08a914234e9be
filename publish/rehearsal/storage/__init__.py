"""Repos on disk: bare git repositories, LFS objects beside them, and who owns which namespace."""
