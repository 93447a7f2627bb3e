"""Whether a folder hides this project's packages from Ray's workers.

Ray puts the folder where its driver runs first on `sys.path` of each worker. A package of the same
name there, such as `replay`, would be imported in place of ours. docs/adr/0028-packaging.md.
"""

from __future__ import annotations

from importlib.machinery import PathFinder
from pathlib import Path

PACKAGES = ("gato", "learner", "actors", "replay", "cluster")
ROOT = Path(__file__).resolve().parent.parent


def require_own_packages(folder: Path | None = None) -> None:
    """Call this before Ray is started in `folder`; default: the working folder.

    Raises:
        ValueError: If the folder has a package or module with the name of one of ours.
    """
    where = (folder or Path.cwd()).resolve()
    for name in PACKAGES:
        spec = PathFinder.find_spec(name, [str(where)])
        # A folder without __init__.py has no origin, and hides nothing.
        if spec is None or spec.origin is None:
            continue
        if Path(spec.origin).resolve() != ROOT / name / "__init__.py":
            raise ValueError(
                f"{spec.origin} would hide gato-ray's own package {name} from Ray's workers, which"
                f" look in {where} first; start in another folder, or rename it"
            )
