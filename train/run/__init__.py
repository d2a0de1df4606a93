"""The trainer of all parts; it knows none of them."""
