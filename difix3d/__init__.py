"""Difix3D Studio: capture, splat, fix, rate, fine-tune."""

__version__ = "0.1.0"
