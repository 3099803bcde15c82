"""Run a script with limited GPU memory: gpu_capped.py MIB SCRIPT ARGUMENTS…  (0 MiB: no limit)"""

import runpy
import sys


def main() -> None:
    """Set the limit, then run the script in this process."""
    mib, script = int(sys.argv[1]), sys.argv[2]
    if mib:
        import torch

        total = torch.cuda.get_device_properties(0).total_memory / 2**20
        torch.cuda.set_per_process_memory_fraction(min(1.0, mib / total))
    sys.argv = sys.argv[2:]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
