"""Where raw checkpoints are: a folder, or branches on a Hub. Lists steps, resolves commits, reads byte ranges."""
