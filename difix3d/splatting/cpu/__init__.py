"""Numba kernels: splats to pictures and back on the CPU, and the loss of a picture with its gradient."""
