"""Speech -> units of text, by the encoder with heads on it; what it learns, and how well."""
