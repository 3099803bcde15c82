"""Propose a study file for data and a model of your own: looks at both, chooses settings, prints what the study takes.

    python scripts/tools/new_study.py --data my.csv --model path-or-hub-id [--lr "1e-4 2e-4 1e-3"] [--card T4]
    make new-study DATA=my.csv MODEL=path-or-hub-id [LR="1e-4 2e-4 1e-3"] [CARD=T4]

What is missing is asked for on a terminal. Writes config/studies/NAME.yaml and nothing else.
"""

if __name__ == "__main__":
    import check_environment  # noqa: F401  ends the process if packages are missing

import argparse
import shlex
import sys

from loragrid.errors import UserError, print_line, run_main, summary_line
from loragrid.proposing.new_study import NewStudy, new_study, write_study
from loragrid.proposing.request import Request, card_key, key_of, learning_rates, study_columns
from loragrid.runtime.progress_lines import working
from loragrid.runtime.quiet_libraries import quiet_libraries

USAGE = 'make new-study DATA=my.csv MODEL=path-or-hub-id [LR="1e-4 2e-4 1e-3"] [CARD=T4]'
QUESTIONS = {
    "data": "Your data (a file, a folder, or a data set of the hub as owner/name)",
    "model": "The base model (a folder, or a model of the hub as owner/name)",
}


def ask(what: str) -> str:
    """The user's answer on a terminal; without a terminal a `UserError` with the command to give."""
    if not sys.stdin.isatty():
        raise UserError(f"{what.upper()}: missing. Fix: {USAGE}.")
    while True:
        try:
            answer = input(f"{QUESTIONS[what]}: ").strip()
        except EOFError:
            raise UserError(f"{what.upper()}: missing. Fix: {USAGE}.") from None
        if answer:
            return answer


def request_of(options: argparse.Namespace) -> Request:
    """The request in the command line, and in the answers to what it leaves out."""
    data = options.data or ask("data")
    model = options.model or ask("model")
    return Request(
        data=data,
        model=model,
        name=options.name or key_of(data),
        learning_rates=learning_rates(options.lr),
        card=card_key(options.card or None),
        hours=options.hours,
        columns=study_columns(options.columns),
        split=options.split,
    )


def command_of(request: Request) -> str:
    """The command that asks for the same study again."""
    words = [f"DATA={shlex.quote(request.data)}", f"MODEL={shlex.quote(request.model)}"]
    if request.learning_rates:
        words.append(f'LR="{" ".join(f"{rate:g}" for rate in request.learning_rates)}"')
    words += [f"CARD={request.card}"] if request.card else []
    words += [f"HOURS={request.hours:g}"] if request.hours else []
    words += [f"NAME={request.name}"] if request.name != key_of(request.data) else []
    if request.columns:
        columns = " ".join(
            f'{use}="{name}"' if " " in name else f"{use}={name}" for use, name in request.columns.items()
        )
        words.append(f"COLUMNS={shlex.quote(columns)}")
    words += [f"SPLIT={shlex.quote(request.split)}"] if request.split != Request.split else []
    return " ".join(["make new-study", *words])


def show(study: NewStudy) -> None:
    """Print what was found, what the study takes, and how to run it."""
    for line in study.lines:
        print(f"  {line}")
    print(f"\nRun it, or change {study.file.relative_to(study.file.parents[2])} before you do:\n")
    print(f"  make study STUDY={study.name}{f' CORES={study.cores}' if study.cores > 1 else ''}")


def positive_hours(text: str) -> float | None:
    """Hours above 0; an empty text is None."""
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise UserError(f"HOURS: not a number above 0 ({text!r}). Fix: write hours, such as HOURS=0.5.")
    return value


def main() -> None:
    """Map the command line to `new_study`."""
    parser = argparse.ArgumentParser(
        description=summary_line(__doc__), epilog=USAGE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="a file, a folder, or a data set of the hub")
    parser.add_argument("--model", help="a folder in Hugging Face format, or a model of the hub")
    parser.add_argument("--lr", metavar="RATES", help='learning rates to compare, such as "1e-4 2e-4 1e-3"')
    parser.add_argument("--card", help="a GPU of config/cards.yaml to plan for if this machine has none, such as T4")
    parser.add_argument(
        "--hours", help="the most that the study may take (default: eight minutes on a CPU, 8 hours on a GPU)"
    )
    parser.add_argument("--name", help="name of the study (default: that of the data)")
    parser.add_argument("--columns", help="prompt and reply among columns, such as 'prompt=frage reply=antwort'")
    parser.add_argument("--split", default="train", help="split of a data set of the hub (default: train)")
    options = parser.parse_args()
    options.hours = positive_hours(options.hours or "")
    quiet_libraries()
    request = request_of(options)
    with working("new study: reading data and model, and planning"):
        study = new_study(request, command=command_of(request))
    file = write_study(study)
    print_line(f"new study: {file.relative_to(file.parents[2])}")
    show(study)


if __name__ == "__main__":
    run_main(main)
