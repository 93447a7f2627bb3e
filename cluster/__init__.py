"""Wiring, supervision, watching and the command line: the only package that knows all the others."""

import os
from pathlib import Path

# A Ray that runs asks for a token wherever one lies in the home folder (`ray.init` itself puts one there), but Ray 2.60 gives
# it only if told to, and reads what it was told when it is imported.
if (
    "RAY_AUTH_TOKEN" in os.environ
    or Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray/auth_token")).is_file()
):
    os.environ.setdefault("RAY_AUTH_MODE", "token")
