"""Entry point of the console script ``adatosk``, of ``python -m adatosk`` and of ``python -m adatosk.train`` etc."""

import sys

from adatosk.utils.endings import ending, nothing_left_to_unwind, quiet_interrupts


def main() -> None:
    """Run the command line and exit, following the convention of :mod:`adatosk.utils.endings`."""
    quiet_interrupts()
    try:
        with ending():
            from adatosk.cli import app

            app(args=sys.argv[1:], prog_name="adatosk")
    finally:
        nothing_left_to_unwind()


if __name__ == "__main__":
    main()
