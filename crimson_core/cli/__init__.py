"""The command line, `crimson`. This module imports little, so that what goes wrong from the start on is one line."""

import errno
import gc
import os
import sys

from crimson_core.errors import CrimsonError

_MANY_OBJECTS = 20_000  # are made before Python looks for garbage again; importing and judging leave almost none
_BROKEN_PIPE, _INTERRUPTED = 128 + 13, 128 + 2  # the exit statuses of programs that SIGPIPE and SIGINT end


def main() -> None:
    """Run the command line; an error that the user can fix is one line and exit status 2."""
    gc.set_threshold(_MANY_OBJECTS)
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # for terminals without UTF-8
    try:
        try:
            from crimson_core.cli.app import app  # here, since Ctrl-C may come meanwhile

            app()
        except SystemExit as end:
            # typer and rich turn a broken pipe into one, with the exit status of a crash, and Ctrl-C
            if isinstance(end.__context__, BrokenPipeError):
                raise end.__context__ from None
            if isinstance(end.__context__ and end.__context__.__cause__, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            print(end="", flush=True)  # here, where errors are handled
            raise
    except KeyboardInterrupt:  # a command that has something to tell catches it itself
        print("Interrupted.", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    except CrimsonError as error:
        print(f"crimson: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        unread = isinstance(error, BrokenPipeError)  # the reader of our output has finished, like `head`
        if not unread:
            print(f"crimson: {_what_failed(error)}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the rest of the output is dropped
        sys.exit(_BROKEN_PIPE if unread else 2)


def _open_streams() -> None:
    """Open the streams that the caller has closed (`>&-`), so that no file of ours takes their place and is written to.

    What goes to standard output is asked for, and cannot be written; messages are lost, as they were to be.
    """
    for descriptor, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_WRONLY if name == "stderr" else os.O_RDONLY)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))


def _what_failed(error: OSError) -> str:
    reason = error.strerror or type(error).__name__
    if error.filename is not None:
        return f"{error.filename} cannot be used: {reason}."
    if error.errno == errno.ENOENT:  # only a look-up of the working folder has no file name
        return "the working folder does not exist any more. Change to another one, and run again."
    return f"standard output cannot be written: {reason}."
