"""Difix3D Studio: capture, splat, fix, rate, fine-tune."""

import os

from difix3d.machine import container_cores, cores

# torch's OpenMP threads otherwise spin for milliseconds after each operation, and on two cores they take that time
# from our own kernels: a fitting step is about a fifth slower. Where they sleep at once, each of a network's many short
# operations waits for them to wake (GOMP_SPINCOUNT=0 python benchmarks/lite.py shows lite so). They spin for well below
# a millisecond, with GNU's OpenMP; others do not know the number and sleep. Read once, when torch is imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
# glibc maps every large tensor anew and gives it back at once, so that each operation faults its pages in again. Huge
# pages make that 512 times fewer. THP_MEM_ALLOC_ENABLE=0 python benchmarks/difix.py shows Difix on CPU without.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

# In a container with two cores' worth of time on a machine of sixteen, sixteen threads would wait for each other.
if container_cores() is not None:
    os.environ.setdefault("OMP_NUM_THREADS", str(cores()))

__version__ = "0.1.0"
