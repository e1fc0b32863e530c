"""The `curate` command: one file per subcommand in `curate/commands/`, imported only when it is called."""

from __future__ import annotations

import importlib
import logging
import os
import pkgutil
import sys
import time

import click

from curate import commands, metrics
from curate.errors import RequestError, WorkError, of_a_store

# Before torch is loaded anywhere: threads that wait by spinning take the core from those that work, and on a
# machine that does anything else a training is ten times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
COUNTED = frozenset({"bootstrap", "crawl", "download", "evaluate", "filter", "measure", "recaption", "train"})
"""Commands whose runs are counted; those of `run`, `ablate` and `deploy` are counted by their flows."""


class LazyGroup(click.Group):
    """Finds `curate <name>` in `curate/commands/<name>.py`, whose `command` it is."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(module.name for module in pkgutil.iter_modules(commands.__path__))

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(ctx):
            return None
        return importlib.import_module(f"curate.commands.{name}").command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="curate")
@click.option("-v", "--verbose", is_flag=True, help="Show debug messages, and the traceback of a failure.")
def cli(verbose: bool) -> None:
    """Turn raw web image-text pairs into training data, and prove that the data is better."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for chatty in ("httpx", "PIL", "fsspec", "faiss.loader", "aiobotocore", "botocore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def main(argv: list[str] | None = None) -> None:
    """Run the command; exit 0 done, 1 the work failed, 2 the request is wrong, 130 interrupted."""
    sys.exit(run(argv))


def run(argv: list[str] | None = None) -> int:
    """Like `main`, but returns the exit code (tests and other programs call this).

    >>> run(["filter", "no/such/pool", "out"])
    2
    """
    arguments, began = sys.argv[1:] if argv is None else argv, time.perf_counter()
    code = _run(arguments)
    command = next((word for word in arguments if not word.startswith("-")), "")
    if command in COUNTED and code != 2:  # a wrong request has not begun
        metrics.ran(f"curate {command}", "", code == 0, time.perf_counter() - began)
    return code


def _run(arguments: list[str]) -> int:
    try:
        return cli.main(args=arguments, prog_name="curate", standalone_mode=False) or 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.Abort:
        return _say("interrupted; run the same command again to resume", 130)
    except click.ClickException as wrong:
        hint = f" (see {wrong.ctx.command_path} --help)" if getattr(wrong, "ctx", None) else ""  # type: ignore[attr-defined]
        return _say(wrong.format_message() + hint, 2)
    except RequestError as wrong:
        return _say(str(wrong), 2)
    except Exception as failed:
        known = isinstance(failed, (WorkError, OSError)) or of_a_store(failed)
        if not known or logging.getLogger().isEnabledFor(logging.DEBUG):
            raise
        return _say(str(failed), 1)


def _say(message: str, code: int) -> int:
    click.echo(f"curate: {' '.join(message.split())}", err=True)
    return code


if __name__ == "__main__":
    main()
