"""Memory that torch frees: kept for its next tensors, given back between jobs. glibc alone has the functions."""

import subprocess
import sys

import pytest

from loragrid.paths import SCRIPTS

SIZE = 400 * 2**20
RESIDENT = f"""
import os, sys
sys.path.insert(0, {str(SCRIPTS)!r})
import torch
from loragrid.runtime.torch_memory import return_freed_memory, set_up_torch

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

if sys.argv[1] == "set up":
    set_up_torch(1)
before = resident()
torch.ones({SIZE} // 4)
freed = resident()
return_freed_memory()
print(freed - before, resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("how", "is_kept"), [("set up", True), ("not", False)])
def test_freed_memory_is_kept_until_it_is_given_back(how: str, is_kept: bool) -> None:
    printed = subprocess.run([sys.executable, "-c", RESIDENT, how], capture_output=True, text=True, check=True).stdout
    kept, returned = map(int, printed.split())
    assert (kept > 0.9 * SIZE) == is_kept and returned < 0.1 * SIZE
