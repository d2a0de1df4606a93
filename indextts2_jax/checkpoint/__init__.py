"""A checkpoint on disk, and its networks in memory."""
