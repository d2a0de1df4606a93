"""Prepared data -> batches."""
