"""The egress gate: what leaves is what it understood, compared with every private row, and wrote anew."""
