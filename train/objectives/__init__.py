"""Losses and heads that no release has."""
