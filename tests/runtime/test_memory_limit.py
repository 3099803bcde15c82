"""Work that asks for more memory than its limit ends with an error, and the limit ends with the work."""

import resource
import sys

import pytest

from loragrid.runtime.memory_limit import memory_limit

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not count the address space")
MB = 2**20


def test_more_than_the_limit_is_an_error_and_less_is_not() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    with memory_limit(256 * MB):
        assert len(bytearray(16 * MB)) == 16 * MB
        with pytest.raises(MemoryError):
            bytearray(1024 * MB)
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_a_lower_limit_stays() -> None:
    with memory_limit(64 * MB):
        lower = resource.getrlimit(resource.RLIMIT_AS)
        with memory_limit(1024 * MB):
            assert resource.getrlimit(resource.RLIMIT_AS) == lower
