"""Connecting to Ray: a cluster that runs already, or a local one."""

from __future__ import annotations

import logging
import os
import warnings

import ray
from ray._private.authentication.authentication_token_setup import (
    maybe_enable_token_auth_if_token_available,
)
from ray.exceptions import RayError

from cluster.control.ray_probe import require_ray
from gato.import_path import require_own_packages


def connect_ray(address: str | None, *, namespace: str, num_cpus: int | None = None) -> None:
    """Connect to the Ray at `address` (host:port), or start a local one, of `num_cpus` (None: the
    machine's).

    Raises:
        ValueError: If nothing answers there, if none starts, or if the working folder has a package
            with the name of one of ours.
    """
    require_own_packages()
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray would run its workers at niceness 15, behind anything else on the machine; they are what
    # the machine is for.
    os.environ.setdefault("RAY_worker_niceness", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if address is None:
            try:
                ray.init(
                    address="local",
                    num_cpus=num_cpus,
                    include_dashboard=False,
                    namespace=namespace,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            except Exception as problem:
                # Ray has no exception of its own for a start that took too long.
                raise ValueError(
                    f"a local Ray did not start: {problem}; is the machine busy, or out of memory?"
                ) from problem
            return
        _offer_token()
        try:
            require_ray(address)
            ray.init(
                address=address,
                namespace=namespace,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (ConnectionError, RuntimeError, RayError) as problem:
            raise ValueError(
                f"the Ray at {address!r} refused: {str(problem).splitlines()[0]}; both sides need"
                " the same token (RAY_AUTH_TOKEN_PATH, or RAY_AUTH_MODE=disabled on both) and the"
                " same version of Ray"
            ) from problem


def _offer_token() -> None:
    """Join with the token that lies in the home folder, if one does: Ray 2.60 asks for it but
    offers it only to "auto"."""
    # It warns that a token is used, before it is known whether a Ray listens there at all.
    logging.getLogger(maybe_enable_token_auth_if_token_available.__module__).setLevel(logging.ERROR)
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
