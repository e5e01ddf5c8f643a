"""A stand-in until the scoring server is merged."""
