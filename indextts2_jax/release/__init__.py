"""A PyTorch release <-> a checkpoint of ours."""
