"""``python -m publish.rehearsal``: the server as a process of its own, as ``publish hub`` runs it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from publish.errors import PublishError
from publish.rehearsal.server import RehearsalHub


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m publish.rehearsal", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="where its repos lie")
    parser.add_argument("--port", type=int, default=7860, help="0: any free port")
    parser.add_argument("--faults", type=Path, help="faults to inject, YAML or JSON")
    arguments = parser.parse_args()
    try:
        RehearsalHub(arguments.root, arguments.port, arguments.faults).serve()
    except PublishError as error:
        sys.stderr.write(f"Error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
