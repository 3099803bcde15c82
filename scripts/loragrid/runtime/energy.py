"""Energy that the accelerator has used, where it counts it."""

from importlib.util import find_spec


class EnergyMeter:
    """Joules since it was made, by the card's own counter (NVIDIA since Volta, through nvidia-ml-py); None without one."""

    def __init__(self, *, device: str) -> None:
        self._handle = None
        if device != "cuda" or find_spec("pynvml") is None:
            return
        import pynvml
        import torch

        try:
            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(0).uuid}")
            self._before = pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
        except pynvml.NVMLError:  # an older card, or a driver that does not tell
            self._handle = None

    def joules(self) -> float | None:
        """Energy of the whole card since the meter was made: another job on the same card counts too."""
        if self._handle is None:
            return None
        import pynvml

        return (pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) - self._before) / 1000
