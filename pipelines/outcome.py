"""What becomes of a command: its work is done, or a message and an exit code say why not.

Exit codes: 0 done, 1 failed, 2 wrong usage or config, 130 and 143 interrupted.
"""

import logging
import sys
from collections.abc import Callable
from typing import NoReturn

import typer

from pipelines.config import ConfigError


def run_command(work: Callable[[], None], *, debug: bool) -> None:
    """Runs a command and turns what it raises into a message and an exit code."""
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("pipelines").setLevel(logging.INFO)
    try:
        work()
    except (typer.Exit, BrokenPipeError):
        raise
    except KeyboardInterrupt:
        fail("interrupted; nothing that was committed is lost, run the same command again to go on", 130)
    except ConfigError as error:
        fail(str(error), 2, debug=debug)
    except Exception as error:
        fail(_message(error), _exit_code(error), debug=debug)


def _message(error: Exception) -> str:
    from xlmr_core.errors import XLMRError

    if isinstance(error, (XLMRError, OSError)):
        return str(error)
    # The text of a foreign exception may quote records.
    return f"{type(error).__name__}; this should not happen, --debug shows where and why"


def _exit_code(error: Exception) -> int:
    """2 for what the command line asked wrongly; an error may carry a code of its own."""
    from xlmr_core.errors import CheckpointError, TaskError

    return int(getattr(error, "exit_code", 2 if isinstance(error, (CheckpointError, TaskError)) else 1))


def fail(message: str, code: int, *, debug: bool = False) -> NoReturn:
    """Says why not, and ends the command."""
    if debug:
        logging.getLogger("pipelines").error("%s", message, exc_info=True)
    typer.echo(f"xlmr: {message}", err=True)
    raise typer.Exit(code)
