"""`treadle VERB ...`: parses, runs, prints; every exit status comes from here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

import typer

from treadle import __version__
from treadle.cli.verbs import VERBS
from treadle.ir.diagnostics import ExitCode, TreadleError
from treadle.ir.errors import BadUsage, Defect
from treadle.solvers.interruption import handled

# typer carries a copy of click under a private name, so its base of usage errors is found by name.
_PARSER_ERROR: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
_OVERVIEW = "Compile model + workload + machines into plans, and prove how good each plan is."


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit status (`ExitCode`); never a traceback for bad input."""
    arguments = sys.argv[1:] if argv is None else argv
    as_json = "--json" in arguments
    try:
        with handled(_tell_of_stop):
            status = _build(arguments)(args=arguments, prog_name="treadle", standalone_mode=False)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except TreadleError as error:
        return _report(error, as_json)
    except _PARSER_ERROR as error:
        return _report_usage(error, as_json)
    except BrokenPipeError:
        return ExitCode.DONE
    except Exception as defect:
        return _report(_saved(defect), as_json)
    return status if isinstance(status, int) else ExitCode.DONE


def _tell_of_stop() -> None:
    sys.stderr.write("\nstopping: the best plan so far will be checked and written; Ctrl-C again to give it up\n")


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
        from treadle.cli.output import print_json

        print_json({"error": error.to_json()})
    sys.stderr.write(error.render() + "\n")
    return error.exit_code


def _report_usage(error: Exception, as_json: bool) -> int:
    """Let the option parser say what it missed, with the usage line; `--json` gets the same as data."""
    if as_json:
        from treadle.cli.output import print_json

        print_json({"error": BadUsage(reason=_in_words(error)).to_json()})
    cast(Any, error).show()
    return ExitCode.USAGE


def _in_words(error: Exception) -> str:
    return str(cast(Any, error).format_message()).rstrip(".")


def _saved(defect: Exception) -> Defect:
    """Save the traceback beside the user's temporary files, and return the error that says where it is."""
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="treadle-", suffix=".log", delete=False) as log:
        traceback.print_exception(defect, file=log)
    return Defect(reason=repr(defect), path=log.name)
