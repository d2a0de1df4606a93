"""Training: from recordings to checkpoints. Run from a checkout, as `python -m train.<name>`."""
