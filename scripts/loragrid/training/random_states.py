"""The state of the random number generators, as a digest that two runs can be compared by."""

import random
from hashlib import sha256


def random_state_sha256() -> str:
    """Digest of the random number generators of Python, numpy and torch, all GPUs included."""
    import numpy as np
    import torch

    # The position in the key changes with every draw, the key only when it is used up. The rest is
    # a normal number that numpy keeps for the next call.
    _, key, *position = np.random.get_state()
    digest = sha256(repr((random.getstate(), position)).encode())
    digest.update(key.tobytes())
    for state in (torch.random.get_rng_state(), *torch.cuda.get_rng_state_all()):
        digest.update(state.numpy().tobytes())
    return digest.hexdigest()
