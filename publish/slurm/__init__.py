"""Steps made by a Slurm job array; the driver, on a login node, is the one that commits.

The work folder, on a file system that all nodes share, is all that driver and tasks have in common.
"""
