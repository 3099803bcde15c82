"""Energy used by the GPU, as its own counter measures it."""

from importlib.util import find_spec


class EnergyMeter:
    """Energy since the meter was made, from NVIDIA's counter (Volta or newer, by nvidia-ml-py)."""

    def __init__(self, *, device: str) -> None:
        self._handle = None
        if device != "cuda" or find_spec("pynvml") is None:
            return
        import pynvml
        import torch

        # By UUID: NVML counts all GPUs of the machine, torch only those in CUDA_VISIBLE_DEVICES.
        uuid = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
        try:
            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
            self._before = pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
        except pynvml.NVMLError:
            # An older GPU, or a virtual machine whose driver hides the counter.
            self._handle = None

    def joules(self) -> float | None:
        """Energy of the whole GPU, other jobs on it included; None without a counter."""
        if self._handle is None:
            return None
        import pynvml

        millijoules = pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) - self._before
        return millijoules / 1000
