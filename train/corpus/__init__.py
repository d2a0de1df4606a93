"""Recordings -> rows of prepared data."""
