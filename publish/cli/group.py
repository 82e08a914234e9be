"""The ``publish`` command: its subcommands by name, loaded when they are called."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Mapping
from typing import Any, NoReturn

import click

from publish import __version__
from publish.errors import PublishError
from publish.interrupt import Interrupted

COMMANDS: Mapping[str, tuple[str, str]] = {
    "init": ("publish.cli.init", "Write a release file from a checkpoint's own config."),
    "plan": ("publish.cli.plan", "Show what a release takes: steps, bytes, commits, time, disk. Changes nothing."),
    "all-steps": ("publish.cli.all_steps", "Release every step of a run, each as its own branch."),
    "status": ("publish.cli.status", "Show the state of each step: published, stale, missing or foreign."),
    "convert": ("publish.cli.convert", "Convert one step to a folder that from_pretrained loads."),
    "explain": ("publish.cli.explain", "Find the seed and generator that produced a model's initial weights."),
    "inspect": ("publish.cli.inspect", "Show a checkpoint's metadata without reading weights."),
    "schedule": ("publish.cli.schedule", "Check that exactly the right steps are there, and that each is its step."),
    "cards": ("publish.cli.cards", "Regenerate cards: write them to a folder, compare them, or push them."),
    "audit": ("publish.cli.audit", "Examine published suites without downloading weights."),
    "compare": ("publish.cli.compare", "Compare two models tensor by tensor: how are they related?"),
    "hub": ("publish.cli.hub", "Run a rehearsal Hub on loopback."),
    "demo": ("publish.cli.demo", "Release sample checkpoints on a rehearsal Hub."),
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
            if isinstance(error, Interrupted):
                _exit_now(error.exit_code)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            _exit_now(130)
        except BrokenPipeError:
            sys.stdout = None  # the reader went away; nothing is left to say
            ctx.exit(1)


def _exit_now(code: int) -> NoReturn:
    """Exit without waiting for threads: one may compute, or wait for a server, longer than a user waits for Ctrl-C."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@click.group(cls=PublishGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(__version__, prog_name="publish")
def main(debug: bool) -> None:
    """Release a GPT-NeoX training run on the Hugging Face Hub: every step a branch, every branch verified."""
