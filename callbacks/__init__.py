"""Lightning callbacks: averaged weights, pictures, curves, metrics, checkpoints, interrupts."""
