"""`gato ask`: a question about an image, to a trained model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.options import AsJson, command_group, run_names

app = command_group()


@app.command()
def ask(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RUN", help="A run's name, or a checkpoint's folder.", autocompletion=run_names
        ),
    ],
    question: Annotated[
        str, typer.Argument(help="The question. Without one the image is captioned.")
    ] = "",
    image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The image: PNG, JPEG, or another.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Which task of the run, if several fit.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask the last checkpoint of a run about an image, and print its answer.

    Example: [bold]gato ask breadth --image shapes.png "what color is the shape?"[/bold]
    """
    from cluster.control.evaluation.ask import ask as answer_of

    answer = answer_of(what, question, image, task=task)
    shown = json.dumps({"question": question, "answer": answer}) if as_json else answer
    sys.stdout.write(shown + "\n")
