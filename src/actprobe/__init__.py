"""actprobe: reproducible probing experiments on the inside of neural networks."""

__version__ = "0.1.0"
