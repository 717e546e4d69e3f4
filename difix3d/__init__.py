"""Difix3D Studio: capture, splat, fix, rate, fine-tune."""

import os

# torch's OpenMP threads otherwise spin for milliseconds after each operation, and on two cores they take that time
# from our own kernels: a fitting step is about a fifth slower. Read once, when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
