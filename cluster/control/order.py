"""What a supervisor on a cluster is told, and what it says of its run."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from cluster.control.initial_weights import InitialWeights
from cluster.runs.config import RunConfig
from cluster.runs.folder import ShownState
from cluster.runs.home import Home


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a supervisor is to do: start a new run, or go on with the one in a folder."""

    run_id: str
    address: str
    """Of the cluster's head."""
    redis_url: str | None
    config: RunConfig | None = None
    """Of a new run."""
    text: bytes | None = None
    """Its encoder of text, if that is a file."""
    initial: InitialWeights | None = None
    """The weights that it begins with."""
    path: str = ""
    """The folder of a run to go on with."""
    settings: Sequence[str] = ()
    """What is changed when it goes on."""
    storage: str = ""
    """Where the copy is of which the run is made here, its home being lost."""
    session: str = field(default_factory=partial(secrets.token_hex, 16))
    """Differs for each start and resume: who takes over also takes the words that wait."""
    is_exact: bool = False
    """A new run has its config's name, and no other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a supervisor says of its run."""

    home: Home
    name: str
    config: RunConfig
    state: ShownState
    reason: str
    redis_url: str
    """Empty until there is one."""
    scales: str
    """JSON."""
