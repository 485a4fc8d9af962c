"""`treadle VERB ...`: parses, runs, prints; every exit status comes from here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module

import typer

from treadle import __version__
from treadle.cli.verbs import VERBS
from treadle.ir.diagnostics import ExitCode, TreadleError

_OVERVIEW = "Compile model + workload + machines into plans, and prove how good each plan is."


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit status (`ExitCode`); never a traceback for bad input."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        _build(arguments)(args=arguments, prog_name="treadle")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except TreadleError as error:
        return _report(error, as_json="--json" in arguments)
    except BrokenPipeError:
        return ExitCode.DONE
    except KeyboardInterrupt:
        sys.stderr.write("stopped before a plan was found\n")
        return ExitCode.LIMIT
    except Exception:
        return _internal_error()
    return ExitCode.DONE


def _build(arguments: list[str]) -> typer.Typer:
    """Assemble the application; only the verbs that the arguments mention are imported."""
    app = typer.Typer(
        help=_OVERVIEW,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for verb, (module_name, summary) in VERBS.items():
        if verb not in arguments:
            app.command(verb, help=summary)(_placeholder)
            continue
        module = import_module(module_name)
        if hasattr(module, "app"):
            app.add_typer(module.app, name=verb, help=summary)
        else:
            command: Callable[..., None] = module.command
            app.command(verb, short_help=summary)(command)
    return app


def _placeholder() -> None:
    """Stand for a verb that the arguments do not name; it is listed by `--help` and never run."""


def _show_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"treadle {__version__}\n")
        raise typer.Exit


def _root(
    version: bool = typer.Option(
        False, "--version", help="Print the version and exit.", is_eager=True, callback=_show_version
    ),
) -> None:
    """Hold the options that need no verb."""


def _report(error: TreadleError, as_json: bool) -> int:
    if as_json:
        import json

        sys.stdout.write(json.dumps({"error": error.to_json()}, indent=1) + "\n")
    sys.stderr.write(error.render() + "\n")
    return error.exit_code


def _internal_error() -> int:
    """Save the traceback beside the user's temporary files and say where it is."""
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="treadle-", suffix=".log", delete=False) as log:
        traceback.print_exc(file=log)
    sys.stderr.write(
        f"error TRD099: treadle has a defect: {sys.exc_info()[1]!r}\n"
        f"  the traceback is in {log.name}\n"
        "  hint: please report it with the command line that led here\n"
    )
    return ExitCode.INTERNAL
