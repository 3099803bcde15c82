"""Run a script with only so much of the GPU's memory: gpu_capped.py MIB SCRIPT ARGUMENTS…  (0 MiB: all of it)"""

import runpy
import sys


def main() -> None:
    """Set the cap, then be the script."""
    mib, script = int(sys.argv[1]), sys.argv[2]
    if mib:
        import torch

        total = torch.cuda.get_device_properties(0).total_memory / 2**20
        torch.cuda.set_per_process_memory_fraction(min(1.0, mib / total))
    sys.argv = sys.argv[2:]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
