"""`gato serve`: a trained policy as a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.options import command_group, console, run_names
from cluster.monitor.format import literal

app = command_group()


@app.command()
def serve(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RUN|FILE",
            help="A run's name, a checkpoint's folder, or a policy file.",
            autocompletion=run_names,
        ),
    ],
    host: Annotated[
        str,
        typer.Option(help="Address to listen at. Beyond loopback it needs --token-file."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at; 0: a free one.")] = 6410,
    token_file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="The token that clients send. Default: one is made for each start."
        ),
    ] = None,
    clients: Annotated[int, typer.Option(min=1, max=4096, help="The most clients at once.")] = 256,
    patience: Annotated[
        float,
        typer.Option(
            min=0.001,
            metavar="SECONDS",
            help=(
                "How long the clients of a task wait for one of them; a slower one is served"
                " alone until it is quick again."
            ),
        ),
    ] = 0.25,
    idle_timeout: Annotated[
        float,
        typer.Option(
            min=1.0, metavar="SECONDS", help="Silence after which a client's episode is dropped."
        ),
    ] = 300.0,
) -> None:
    """Serve a trained policy over HTTP; clients of one task share a forward pass.

    Ctrl-C ends it. The weights are those of the moment it starts.

    Example: [bold]gato serve policy.safetensors[/bold]
    """
    from cluster.control.export import policy_of
    from cluster.serving.serve import ServeConfig
    from cluster.serving.serve import serve as serve_policy
    from gato.threads import use_threads

    config = ServeConfig(
        host=host,
        port=port,
        token_file=token_file,
        clients=clients,
        patience_s=patience,
        idle_s=idle_timeout,
    )
    use_threads()
    policy = policy_of(what, command="gato serve")

    def say(url: str, token: Path) -> None:
        console.print(
            f"serving {literal(', '.join(policy.tasks))} (step {policy.weights.learner_step:,} of"
            f" {literal(policy.run)}) at [bold]{literal(url)}[/bold]; the token is in"
            f" {literal(token)}",
            highlight=False,
            soft_wrap=True,
        )

    serve_policy(policy, config, when_ready=say)
    console.print("stopped")
