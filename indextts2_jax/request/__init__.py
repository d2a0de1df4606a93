"""What goes into a synthesis and what comes out; nothing here imports JAX."""
