"""The console script `vx`, and `python -m vx`.

Worker processes import the main module again (multiprocessing's fork server does), so nothing is imported here before
`main` runs.
"""


def main() -> None:
    """Run the command line; ends the process with its exit status."""
    from vx.cli.commands import vx

    vx(prog_name="vx")


if __name__ == "__main__":
    main()
