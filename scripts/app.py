"""App: use what was trained. A web page on this machine where the study's models write running plans and answer prompts.

    app.py [--study demo] [--run RUN | --adapter FOLDER_OR_HUB_ID [--model KEY]]

Reads the comparison, the runs' records and adapters and the report; writes nothing. Runs until it is stopped (Ctrl-C).
"""

import argparse
from pathlib import Path

from loragrid.app.catalogue import Catalogue
from loragrid.app.command_line import add_catalogue_options, catalogue_from_options
from loragrid.app.security_middleware import LOOPBACK
from loragrid.errors import UserError, run_main


def run_app(catalogue: Catalogue, *, host: str, port: int | None, share: bool, login: Path | None) -> None:
    """Load the starting model and serve the app until it is stopped."""
    users = read_login(login) if login else ()
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host  # IPv6, as it stands in an address
    if (share or host not in LOOPBACK) and not users:
        option = "--share" if share else f"--host {host}"
        raise UserError(f"{option} lets others in: name who may with --login FILE, or leave it out")
    from loragrid.app.running import run_catalogue
    from loragrid.app.server import ServerOptions

    run_catalogue(catalogue, ServerOptions(host=host, port=port, share=share, login=users))


def read_login(path: Path) -> tuple[tuple[str, str], ...]:
    """(name, password) pairs from a file with one `name:password` a line."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--login {path} cannot be read ({error}): write one name:password a line") from None
    pairs = [tuple(line.strip().split(":", 1)) for line in lines]
    if not pairs or not all(len(pair) == 2 and all(pair) for pair in pairs):
        raise UserError(f"--login {path}: write one name:password a line, and at least one")
    return tuple(pairs)


def main() -> None:
    """Map the command line to `run_app`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_catalogue_options(parser)
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; another than this machine's needs --login"
    )
    parser.add_argument("--port", type=int, help="port to listen on; the first free one from 7860 on if left out")
    parser.add_argument(
        "--share", action="store_true", help="also open a public link through Gradio's servers; needs --login"
    )
    parser.add_argument("--login", type=Path, help="file of name:password lines; only these users may enter")
    options = parser.parse_args()
    _, catalogue = catalogue_from_options(options)
    run_app(catalogue, host=options.host, port=options.port, share=options.share, login=options.login)


if __name__ == "__main__":
    run_main(main)
