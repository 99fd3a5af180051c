"""The console script ``adatosk``; also ``python -m adatosk``, and what ``python -m adatosk.train`` and its kin call."""

import sys

from adatosk.utils.endings import ending, nothing_left_to_unwind, quiet_interrupts


def main(*command: str) -> None:
    """Run the command line and exit, by the convention of :mod:`adatosk.utils.endings`.

    Args:
        *command: the command that the arguments are for; by default the first one names it.
    """
    quiet_interrupts()
    try:
        with ending():
            from adatosk.cli import app

            app(args=[*command, *sys.argv[1:]], prog_name="adatosk")
    finally:
        nothing_left_to_unwind()


if __name__ == "__main__":
    main()
