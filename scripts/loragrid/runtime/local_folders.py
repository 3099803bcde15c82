"""Temporary folders on a disk of this machine."""

import os
import tempfile
from pathlib import Path

MOUNTS = Path("/proc/mounts")
# Kinds of mounted drives. FUSE is what Google Drive, buckets and sshfs are mounted with.
REMOTE = ("fuse", "nfs", "cifs", "smb", "9p", "lustre", "beegfs", "gpfs", "ceph", "gluster", "afs", "davfs")


def make_local_folder(prefix: str) -> Path:
    """A new folder for this user only, on a local disk if there is one with a folder for temporary files."""
    places = [Path(place) for place in (tempfile.gettempdir(), "/var/tmp", "/dev/shm")]
    usable = [place for place in places if place.is_dir() and os.access(place, os.W_OK)]
    local = [place for place in usable if not is_remote(place)]
    return Path(tempfile.mkdtemp(prefix=prefix, dir=(local or usable or places)[0]))


def is_remote(folder: Path) -> bool:
    """Whether a folder is on a mounted drive; False where the system lists no mounts."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    folder, kind, longest = folder.resolve(), "", -1
    for line in lines:
        _, place, mounted, *_ = line.split(" ")
        # Spaces are written as \040.
        mount = Path(place.replace("\\040", " "))
        # The last of several mounts on one place covers the others.
        if folder.is_relative_to(mount) and len(mount.parts) >= longest:
            kind, longest = mounted, len(mount.parts)
    return kind.startswith(REMOTE)
