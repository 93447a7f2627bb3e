"""The process of a run in the background: `python -m cluster.control.detached FOLDER`, started by
`gato start --detach`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cluster.control.lifecycle import supervise_detached
from cluster.monitor.format import printable
from cluster.runs.folder import RunFolder


def main() -> int:
    """Supervise the run whose folder is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--address")
    parser.add_argument("--redis-kept", action="store_true")
    parser.add_argument("--redis-port", type=int)
    arguments = parser.parse_args()
    folder = RunFolder(arguments.folder.parent, arguments.folder.name)
    try:
        supervise_detached(
            folder,
            address=arguments.address,
            redis_kept=arguments.redis_kept,
            redis_port=arguments.redis_port,
        )
    except (ValueError, OSError) as problem:
        print(f"error: {printable(problem)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
