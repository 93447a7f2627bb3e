"""The command `gato`: the words people type. The only file that knows the command-line library."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from actors.tasks.resolve import note_on
from cluster.cli import replay_inspect as replay_words
from cluster.cli import replay_maintain as replay_care
from cluster.cli import replay_provenance as origins
from cluster.cli import run_commands as commands
from cluster.cli import teach as teaching
from cluster.cli.check import check_task
from cluster.cli.doctor import doctor as examine
from cluster.control import build_run as choices
from cluster.control import lifecycle as running
from cluster.monitor.format import literal
from cluster.runs.presets import RUNS

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Train one Gato on many games and many bodies, and watch it play.",
)
console = Console(emoji=False)  # a name may hold :text: between colons
replay = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Look into stored episodes, and look after them: of a run, of a data set, or in a folder.",
)
app.add_typer(replay, name="replay")

RunName = Annotated[
    str | None,
    typer.Argument(help="A run's name; without one the newest that is active, else the newest."),
]
Where = Annotated[
    str | None,
    typer.Argument(
        metavar="[WHAT]", help="A run's name, a data set's, or a folder. Default: the newest run."
    ),
]
OfTask = Annotated[str | None, typer.Option("--task", help="Only episodes of this task.")]
OfSource = Annotated[
    str | None,
    typer.Option("--source", help="Only of this source: agent, teacher, file, or all of its name."),
]
Redis = Annotated[
    str | None,
    typer.Option("--redis", metavar="URL", help="A Redis to use in place of the run's own."),
]
NAMED_RUNS = "\n\n".join(f"[bold]{name}[/bold]: {config.about}" for name, config in RUNS.items())


@app.command(epilog=f"Runs:\n\n{NAMED_RUNS}")
def start(
    run: Annotated[str, typer.Argument(help="A named run.")] = "demo",
    name: Annotated[str | None, typer.Option(help="What to call it. Default: the run's name, with a number where taken.")] = None,
    tasks: Annotated[str | None, typer.Option(help="Other tasks, such as mujoco/hopper,atari/pong or your own, my_pkg:MyEnv-v0.")] = None,
    data: Annotated[list[str] | None, typer.Option(help="A data set of `gato import` or `gato record` to train on; may be repeated.")] = None,
    text: Annotated[str | None, typer.Option(metavar="FILE.model", help="A SentencePiece model for tasks that show text. Default: its bytes.")] = None,
    teacher: Annotated[list[str] | None, typer.Option(metavar="TASK=SPEC", help="Who teaches a task: rule, specialist:FOLDER, sb3:FILE.zip or python:PACKAGE.MODULE:FUNCTION. Default: who ships.")] = None,
    normalise: Annotated[list[str] | None, typer.Option(metavar="TASK", help="Normalise this task's observations by mean and standard deviation of the data sets; may be repeated, all: every task.")] = None,
    workers: Annotated[int | None, typer.Option(help="Number of actor workers.")] = None,
    updates: Annotated[int | None, typer.Option(help="Number of updates of the learner.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the run.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Any other setting, such as learner.max_rate=1e-3; may be repeated.")] = None,
    address: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="A Ray that runs already. Default: a local one.")] = None,
    redis: Redis = None,
    redis_port: Annotated[int | None, typer.Option(help="Port of the run's own Redis, on loopback. Default: any free one.")] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Go on in the background.")] = False,
) -> None:  # fmt: skip
    """Start a run and watch it. Ctrl-C stops it, with everything kept.

    Example: [bold]gato start demo --workers 2[/bold]
    """
    settings = list(set_ or [])
    settings += [f"actors.num_workers={workers}"] if workers is not None else []
    settings += [f"learner.num_updates={updates}"] if updates is not None else []
    settings += [f"seed={seed}"] if seed is not None else []
    chosen = tasks.split(",") if tasks else None
    config = choices.make_config(
        run, name=name, tasks=chosen, data=data or [], settings=settings, text=text, teachers=teacher or [],
        normalise=normalise or [],
    )  # fmt: skip
    names = filter(None, map(note_on, chosen or ()))
    for note in [*names, *choices.teacher_notes(config), *choices.data_notes(config)]:
        console.print(f"[yellow]note:[/yellow] {literal(note)}", highlight=False)
    running.start(
        config,
        address=address,
        redis_url=redis,
        redis_port=redis_port,
        detach=detach,
        console=console,
    )


@app.command()
def resume(
    run: RunName = None,
    updates: Annotated[
        int | None, typer.Option(help="Go on to this number of updates in all.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Number of actor workers.")] = None,
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="A Ray that runs already.")
    ] = None,
    redis: Redis = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Go on in the background.")
    ] = False,
) -> None:
    """Go on with a stopped run, from its last checkpoint, with all its episodes.

    Example: [bold]gato resume demo[/bold]
    """
    settings = [f"actors.num_workers={workers}"] if workers is not None else []
    settings += [f"learner.num_updates={updates}"] if updates is not None else []
    running.resume(
        run, settings=settings, address=address, redis_url=redis, detach=detach, console=console
    )


@app.command()
def watch(
    run: RunName = None,
    once: Annotated[bool, typer.Option("--once", help="Show how it stands and end.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="As one JSON object; with --once.")
    ] = False,
    redis: Redis = None,
) -> None:
    """Watch a run's evaluation returns, live, from any terminal. Ctrl-C ends the watching, not the
    run.

    Example: [bold]gato watch demo --once --json[/bold]
    """
    if as_json and not once:
        raise ValueError("--json shows one moment; add --once")
    if as_json:
        sys.stdout.write(json.dumps(commands.summary_of(run, redis_url=redis).to_json()) + "\n")
    else:
        commands.watch(run, once=once, redis_url=redis, console=console)


@app.command()
def status(run: RunName = None, redis: Redis = None) -> None:
    """How a run stands, once.

    Example: [bold]gato status[/bold]
    """
    commands.watch(run, once=True, redis_url=redis, console=console)


@app.command()
def stop(run: RunName = None, redis: Redis = None) -> None:
    """Stop a run: its learner saves, its workers end; `gato resume` goes on from there.

    Example: [bold]gato stop demo[/bold]
    """
    commands.stop(run, redis_url=redis, console=console)


@app.command()
def scale(
    workers: Annotated[int, typer.Argument(min=0, help="How many actor workers from now on.")],
    run: Annotated[str | None, typer.Option(help="A run's name.")] = None,
    redis: Redis = None,
) -> None:
    """Change the number of actor workers while the run goes on.

    Example: [bold]gato scale 4[/bold]
    """
    commands.scale(run, workers, redis_url=redis, console=console)


@app.command()
def roles(
    run: RunName = None,
    evaluate: Annotated[float | None, typer.Option(help="At most this share evaluating.")] = None,
    generate: Annotated[float | None, typer.Option(help="The agent plays, to learn from its own good episodes.")] = None,
    relabel: Annotated[float | None, typer.Option(help="The agent plays, its teacher says what it would have done.")] = None,
    demonstrate: Annotated[float | None, typer.Option(help="Teachers play, for more demonstrations.")] = None,
    redis: Redis = None,
) -> None:  # fmt: skip
    """Give the workers' roles other shares of their time, 0 to 1, while the run goes on.

    Example: [bold]gato roles demo --relabel 0.5 --generate 0[/bold]
    """
    given = {
        "evaluate": evaluate,
        "generate": generate,
        "relabel": relabel,
        "demonstrate": demonstrate,
    }
    shares = {f"{role}_share": share for role, share in given.items() if share is not None}
    commands.roles(run, shares, redis_url=redis, console=console)


@app.command()
def runs() -> None:
    """List the runs here.

    Example: [bold]gato runs[/bold]
    """
    commands.list_runs(console)


@app.command()
def evaluate(
    what: Annotated[str, typer.Argument(help="A run's name, or a checkpoint's folder.")],
    task: Annotated[list[str] | None, typer.Option(help="Only this task; may be repeated.")] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes of each task.")] = 10,
    video: Annotated[
        bool, typer.Option("--video", help="Film each task's first episode, into the run's folder.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Play a run's last checkpoint and show its returns.

    Example: [bold]gato evaluate demo --episodes 20[/bold]
    """
    commands.evaluate(
        what, tasks=task, episodes=episodes, as_json=as_json, console=console, video=video
    )


@app.command("import")
def import_(
    source: Annotated[str, typer.Argument(help="A D4RL file (.hdf5); a Minari data set: its folder, or minari:ID; a JAT or RLlib file (.parquet) or a folder of such; a folder of the DQN replay data set.")],
    task: Annotated[str | None, typer.Option(help="The task it is of. Default: what the file says of itself.")] = None,
    name: Annotated[str | None, typer.Option(help="What to call the data set here. Default: the file's name.")] = None,
    allow: Annotated[list[str] | None, typer.Option(metavar="WHAT", help="Take it although it contradicts the task in this, such as wrapper:NormalizeObservation; kept with the episodes. May be repeated.")] = None,
) -> None:  # fmt: skip
    """Take demonstrations from a file, to train on with `gato start ... --data NAME`.

    What the file says of its environment is compared with the task: what contradicts it is refused
    by name, converted or said. An episode that is here already is not read again: after Ctrl-C, the
    same command goes on.

    Example: [bold]gato import hopper_expert-v2.hdf5[/bold]
    """
    commands.import_data(source, task=task, name=name, allowed=allow or [], console=console)


@app.command()
def record(
    task: Annotated[str, typer.Argument(help="A task, such as mujoco/hopper.")],
    episodes: Annotated[int, typer.Option(min=1, help="How many.")] = 20,
    name: Annotated[
        str | None, typer.Option(help="What to call the data set here. Default: from the task.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first episode.")] = 0,
    teacher: Annotated[
        str, typer.Option(metavar="SPEC", help="Who plays, as for gato start. Default: who ships.")
    ] = "",
) -> None:
    """Record demonstrations of a task's teacher, to train on with `gato start ... --data NAME`.

    Example: [bold]gato record atari/freeway --episodes 10[/bold]
    """
    commands.record(task, episodes=episodes, name=name, seed=seed, teacher=teacher, console=console)


@app.command()
def check(
    task: Annotated[str, typer.Argument(help="A task, such as mujoco/hopper.")],
    backend: Annotated[
        Literal["auto", "loop", "process", "envpool"],
        typer.Option(help="How its environments are made; auto: users' own in processes."),
    ] = "auto",
) -> None:
    """Check that a task's environment keeps what every environment must: seeds, limits, shapes,
    rows apart.

    Exit status 1 where it does not.

    Example: [bold]gato check atari/pong[/bold]
    """
    if not check_task(task, backend=backend, console=console):
        raise typer.Exit(1)


@app.command()
def teach(
    task: Annotated[str, typer.Argument(help="A MuJoCo task, such as mujoco/hopper.")],
    steps: Annotated[
        int | None, typer.Option(min=1, help="Environment steps. Default: what its settings say.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for its weights and its record. Default: where runs look for teachers."
        ),
    ] = None,
    algorithm: Annotated[
        Literal["ppo", "sac"], typer.Option(help="PPO, or SAC, which is slow on few cores.")
    ] = "ppo",
    address: Annotated[
        str | None, typer.Option(help="host:port of a Ray that runs. Default: one of its own.")
    ] = None,
    env_runners: Annotated[
        int,
        typer.Option(
            min=0,
            help="Processes that play, on all machines of the Ray; 0: the learner plays as well.",
        ),
    ] = 0,
) -> None:
    """Train a specialist with RLlib, to be a teacher. Stopped, the same command goes on from its
    last checkpoint.

    Example: [bold]gato teach mujoco/inverted-pendulum --steps 60000[/bold]
    """
    teaching.teach(
        task, steps=steps, seed=seed, out=out, algorithm=algorithm, address=address, num_env_runners=env_runners,
        console=console,
    )  # fmt: skip


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="As a JSON list.")] = False,
) -> None:
    """Try every package that gato needs or can use; exit status 1 where one that it needs does not
    work.

    Example: [bold]gato doctor[/bold]
    """
    if not examine(console, as_json=as_json):
        raise typer.Exit(1)


@replay.command()
def ls(
    what: Where = None,
    task: OfTask = None,
    source: OfSource = None,
    limit: Annotated[int, typer.Option(min=0, help="The last of them; 0 shows all.")] = 20,
    sort: Annotated[
        Literal["number", "steps", "return"], typer.Option(help="What they are ordered by.")
    ] = "number",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List episodes, the newest last.

    Example: [bold]gato replay ls demo --task pong --sort return[/bold]
    """
    replay_words.ls(
        what, task=task, source=source, limit=limit, order=sort, as_json=as_json, console=console
    )


@replay.command()
def stats(
    what: Where = None,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """What is stored, by task and source, and what it takes.

    Example: [bold]gato replay stats demo[/bold]
    """
    replay_words.stats(what, as_json=as_json, console=console)


@replay.command()
def peek(
    episode: Annotated[
        str,
        typer.Argument(
            help="An episode's key or number; SHARD/NUMBER where there are several shards."
        ),
    ],
    what: Where = None,
    frames: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Write a picture of some of its frames.")
    ] = None,
) -> None:
    """Look at one episode.

    Example: [bold]gato replay peek 17 demo --frames pong.png[/bold]
    """
    replay_words.peek(episode, what, frames=frames, console=console)


@replay.command()
def provenance(
    what: Where = None,
    task: OfTask = None,
    each: Annotated[bool, typer.Option("--each", help="A line for every episode.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Where stored episodes came from, and what was done to them: scaled, cut, clipped, allowed.

    Example: [bold]gato replay provenance hopper_expert-v2[/bold]
    """
    origins.provenance(what, task=task, each=each, as_json=as_json, console=console)


@replay.command()
def verify(
    what: Where = None,
    mend: Annotated[
        bool,
        typer.Option(
            "--mend", help="Take damaged episodes out for good, where no run uses the store."
        ),
    ] = False,
) -> None:
    """Read everything and name what is damaged; exit status 1 where something is.

    Example: [bold]gato replay verify demo[/bold]
    """
    if not replay_care.verify(what, mends=mend, console=console):
        raise typer.Exit(1)


@replay.command()
def compact(what: Where = None) -> None:
    """Give back the disk that evicted and damaged episodes took. Not while a run uses the store.

    Example: [bold]gato replay compact demo[/bold]
    """
    replay_care.compact(what, console=console)


@replay.command()
def export(
    *,
    what: Where = None,
    to: Annotated[
        str,
        typer.Option(
            metavar="FOLDER|minari:ID", help="A new folder, or an id under Minari's own root."
        ),
    ],
    task: OfTask = None,
    source: OfSource = None,
    min_return: Annotated[
        float | None, typer.Option(help="Only episodes that returned so much.")
    ] = None,
) -> None:
    """Write episodes of one task as a Minari data set.

    Example: [bold]gato replay export demo --task hopper --source agent --to hopper-mine-v0[/bold]
    """
    replay_care.export(
        what, to=to, task=task, source=source, min_return=min_return, console=console
    )


OfRun = Annotated[
    str | None, typer.Argument(metavar="[RUN]", help="A run that goes on; without one the newest.")
]


@replay.command()
def pause(run: OfRun = None, redis: Redis = None) -> None:
    """Let the limiter hold nobody back, as for an offline fill, until `gato replay resume`.

    Example: [bold]gato replay pause demo[/bold]
    """
    commands.pace(run, "replay-pause", redis_url=redis, console=console)


@replay.command("resume")
def resume_replay(run: OfRun = None, redis: Redis = None) -> None:
    """End a pause: what came in between is held against neither readers nor writers.

    Example: [bold]gato replay resume demo[/bold]
    """
    commands.pace(run, "replay-resume", redis_url=redis, console=console)


@replay.command()
def limit(
    run: OfRun = None,
    reads_per_token: Annotated[
        float | None, typer.Option(help="How often each inserted token is to be read from now on.")
    ] = None,
    slack: Annotated[int | None, typer.Option(help="Read tokens by which either side may be ahead.")] = None,
    warmup: Annotated[int | None, typer.Option(help="Tokens before which nothing is read.")] = None,
    uncoupled: Annotated[bool, typer.Option("--uncoupled", help="Let readers and writers go on without each other.")] = False,
    redis: Redis = None,
) -> None:  # fmt: skip
    """Give a run's limiter other settings, while it goes on.

    Example: [bold]gato replay limit demo --reads-per-token 8[/bold]
    """
    given = {
        "reads_per_inserted_token": reads_per_token,
        "slack_tokens": slack,
        "warmup_tokens": warmup,
    }
    changes: dict[str, float | None] = {
        name: value for name, value in given.items() if value is not None
    }
    if uncoupled and reads_per_token is not None:
        raise ValueError(
            "--uncoupled and --reads-per-token contradict each other; give one of them"
        )
    if uncoupled:
        changes["reads_per_inserted_token"] = None
    commands.pace(run, "replay-limit", changes=changes, redis_url=redis, console=console)


def main() -> None:
    """Run the command; a user's mistake is one line and exit status 2."""
    try:
        app(standalone_mode=True)
    except (ValueError, OSError) as problem:
        Console(stderr=True, soft_wrap=True, highlight=False, emoji=False).print(
            f"[bold red]error:[/bold red] {literal(' '.join(str(problem).split()))}"
        )
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
