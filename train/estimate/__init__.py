"""What a run needs: counted from shapes, and compiled by XLA."""
