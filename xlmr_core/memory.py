"""Process-wide allocator policy for workers that run the same large operations again and again."""

import ctypes

# Parameter numbers of glibc's mallopt (malloc.h).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> bool:
    """Makes glibc keep freed blocks instead of handing them back to the kernel after every operation.

    An encoder layer frees and takes the same tens of megabytes again within milliseconds; by default each time
    costs thousands of page faults, on a virtual machine a tenth of the whole forward pass on CPU and more of a
    training step. Meant for processes that do nothing else; never called on import.

    Returns:
        Whether this C library has the switch; without it nothing changes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, 1 << 30)) and bool(mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1))
