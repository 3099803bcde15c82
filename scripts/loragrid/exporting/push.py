"""Push an exported folder to the Hugging Face hub, where the user asked for it: one commit, privately by default."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from loragrid.errors import Failed, UserError, first_line, print_line
from loragrid.runtime.secrets import secret_names_in, texts_in, without_secrets

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
TOKEN = "HF_TOKEN"
# Files that tools of this machine leave, and unfinished ones.
NOT_PUSHED = (".*", "**/.*", "*.partial", "**/*.partial")


def check_push(repository: str) -> None:
    """Raise `UserError`, before any work, for a name that is no repository, without a token, or if the hub is off."""
    if not _is_repository(repository):
        raise UserError(f"push: no repository of the hub ({repository[:100]}). Fix: write push=owner/name.")
    if not os.environ.get(TOKEN, "").strip():
        raise UserError(f"push: {TOKEN} is not set. Fix: export {TOKEN} with a token that may write to {repository}.")
    from huggingface_hub import constants

    if constants.is_offline_mode():
        raise UserError("push: HF_HUB_OFFLINE is set. Fix: unset it for this command.")


def _is_repository(name: str) -> bool:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:  # such as dots at an end, which the hub would refuse after all work
        return False
    return REPOSITORY.fullmatch(name) is not None


def push_folder(folder: Path, repository: str, *, public: bool = False, paths: Sequence[str] = ()) -> None:
    """Push the files of a folder to a repository of models, which is made if it does not exist.

    Raises `UserError` for a public repository unless `public`, and for a file that holds a secret of the environment or
    one of `paths`, which are private; nothing is pushed then. Raises `Failed` if the hub refuses; no line repeats the
    token.
    """
    check_push(repository)
    _refuse_secrets(folder)
    _refuse_paths(folder, paths)
    from huggingface_hub import HfApi

    api = HfApi(token=os.environ[TOKEN].strip())
    try:
        api.create_repo(repository, private=not public, exist_ok=True)
        private = bool(api.model_info(repository).private)
        if not private and not public:
            fix = "make it private on the hub, name another one, or add public=true"
            raise UserError(f"push: {repository} can be read by everybody. Fix: {fix}.")
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message=f"Export {folder.name}",
            ignore_patterns=[*NOT_PUSHED],
        )
    except UserError:
        raise
    except Exception as error:
        # The library raises errors of its own, of httpx and of the system.
        reason = without_secrets(f"{type(error).__name__}: {first_line(error)}")
        fix = f"check that {TOKEN} may write there and that the hub can be reached, then run the same command again"
        raise Failed(
            f"push: {repository} did not take the export ({reason}); {folder} is complete. Fix: {fix}."
        ) from None
    print_line(f"pushed {folder} to {api.endpoint}/{repository} ({'private' if private else 'public'})")


def _refuse_paths(folder: Path, paths: Sequence[str]) -> None:
    for file in sorted(folder.rglob("*")):
        if file.is_file() and (found := texts_in(file, paths)):
            fix = "remove it from the file, or name the folder by a path relative to the project"
            raise UserError(f"push: {file} contains a path of this machine ({found[0]}). Fix: {fix}.")


def _refuse_secrets(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and (names := secret_names_in(path)):
            fix = f"remove it from the file, and replace the value of {names[0]}: it may be elsewhere too"
            raise UserError(f"push: {path} holds the value of {names[0]}. Fix: {fix}.")
