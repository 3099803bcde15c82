"""App: a web page on this machine where the study's models write running plans and answer prompts.

    app.py [--study demo] [--run RUN | --adapter FOLDER_OR_HUB_ID [--model KEY]]

Reads the comparison, the runs' records and adapters, and the report; writes nothing. Runs until Ctrl-C or SIGTERM.
"""

import argparse
from pathlib import Path

from loragrid.app.catalogue import Catalogue
from loragrid.app.command_line import add_catalogue_options, catalogue_from_options
from loragrid.app.security_middleware import LOOPBACK
from loragrid.errors import UserError, run_main, summary_line


def run_app(catalogue: Catalogue, *, host: str, port: int | None, share: bool, login: Path | None) -> None:
    """Load the starting model and serve the app until it is stopped."""
    users = read_login(login) if login else ()
    # The app has no other protection against strangers, who could use the machine's GPU and read the report.
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"  # an IPv6 address in a URL has brackets
    if (share or host not in LOOPBACK) and not users:
        option = "--share" if share else f"--host {host}"
        raise UserError(f"{option}: others could open the app without a login. Fix: add --login FILE, or leave it out.")
    from loragrid.app.server import ServerOptions, serve_until_stopped

    serve_until_stopped(catalogue, ServerOptions(host=host, port=port, share=share, login=users))


def read_login(path: Path) -> tuple[tuple[str, str], ...]:
    """The (name, password) pairs of a file with one `name:password` per line."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--login {path}: not readable ({error}). Fix: write one name:password per line.") from None
    pairs = [tuple(line.strip().split(":", 1)) for line in lines]
    if not pairs or not all(len(pair) == 2 and all(pair) for pair in pairs):
        raise UserError(f"--login {path}: a line is no name:password pair, or there is none. Fix: write one per line.")
    return tuple(pairs)


def main() -> None:
    """Map the command line to `run_app`."""
    parser = argparse.ArgumentParser(description=summary_line(__doc__))
    add_catalogue_options(parser)
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; any but this machine's own needs --login"
    )
    parser.add_argument("--port", type=int, help="port to listen on (default: the first free one from 7860)")
    parser.add_argument(
        "--share", action="store_true", help="also open a public link through Gradio's servers; needs --login"
    )
    parser.add_argument("--login", type=Path, help="file of name:password lines; only these users may enter")
    options = parser.parse_args()
    _, catalogue = catalogue_from_options(options)
    run_app(catalogue, host=options.host, port=options.port, share=options.share, login=options.login)


if __name__ == "__main__":
    run_main(main)
