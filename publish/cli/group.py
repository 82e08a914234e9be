"""The ``publish`` command: its subcommands by name, loaded when they are called."""

from __future__ import annotations

import importlib
import os
import sys
import threading
import traceback
from collections.abc import Mapping
from typing import Any, NoReturn

import click

from publish import __version__
from publish.errors import PublishError

STEP_THREADS = "step"  # how run.release names its threads
COMMANDS: Mapping[str, tuple[str, str]] = {
    "init": ("publish.cli.init", "Write a release file from the checkpoint's own config."),
    "plan": ("publish.cli.plan", "Dry run: steps, bytes, commits, hours, disk; changes nothing."),
    "all-steps": ("publish.cli.all_steps", "Release every step of a run, each as its own branch."),
    "status": ("publish.cli.status", "Each step of a release: published, stale, missing or foreign."),
    "convert": ("publish.cli.convert", "Convert one step to a folder that from_pretrained loads."),
    "explain": ("publish.cli.explain", "Which random state made the initial weights: recomputed, proven by equality."),
    "inspect": ("publish.cli.inspect", "What a checkpoint says of itself; reads no weights."),
    "schedule": ("publish.cli.schedule", "Are exactly the right steps there, each the step it claims?"),
    "cards": ("publish.cli.cards", "Write the cards of a release again: to a folder, to compare, or to push."),
    "audit": ("publish.cli.audit", "Examine published suites, weights not downloaded."),
    "compare": ("publish.cli.compare", "Two models tensor by tensor: what they are to each other."),
    "hub": ("publish.cli.hub", "Run a rehearsal Hub on loopback."),
    "demo": ("publish.cli.demo", "A whole release of sample checkpoints on a rehearsal Hub."),
}


class PublishGroup(click.Group):
    """Loads a command's module only when that command runs, and turns errors into exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PublishError as error:
            if ctx.params.get("debug"):
                traceback.print_exc()
            click.echo(f"Error: {error}", err=True)
            leave(ctx, error.exit_code)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            leave(ctx, 130)
        except BrokenPipeError:
            sys.stdout = None  # the reader went away; nothing is left to say
            ctx.exit(1)


def leave(ctx: click.Context, code: int) -> NoReturn:
    """End with this code, without waiting for steps that did not end when they were told to.

    Python waits for every thread at its end, and one may sit in a read of a server that says nothing.
    """
    if any(thread.name.startswith(STEP_THREADS) for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    ctx.exit(code)


@click.group(cls=PublishGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(__version__, prog_name="publish")
def main(debug: bool) -> None:
    """Release a GPT-NeoX training run on the Hugging Face Hub: every step a branch, every branch proven."""
