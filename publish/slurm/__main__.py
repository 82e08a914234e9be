"""``python -m publish.slurm FOLDER BATCH INDEX``: what a task of the array runs. Not for people."""

from __future__ import annotations

import sys
from pathlib import Path

from publish.errors import PublishError
from publish.slurm.folder import Attempt
from publish.slurm.task import run_task


def main() -> int:
    folder, batch, index = sys.argv[1:]
    try:
        return run_task(Path(folder), Attempt(batch, int(index)))
    except PublishError as error:
        sys.stderr.write(f"Error: {error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
