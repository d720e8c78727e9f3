"""The console script `vx`, and `python -m vx`.

Worker processes import the main module again (multiprocessing's fork server does), so nothing is imported here before
`main` runs.
"""

import sys


def main() -> None:
    """Run the command line; ends the process with its exit status."""
    match sys.argv[1:]:
        case ["serve", "--config", config_file] if not config_file.startswith("-"):
            from vx.daemon import serve  # as `vx.cli` does, but without its 1.4 MB, which would stay for good

            serve(config_file)
            return
    from vx.cli.commands import vx

    vx(prog_name="vx")


if __name__ == "__main__":
    main()
