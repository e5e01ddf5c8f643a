"""What wants to leave: taken in, opened, decoded, and held against the schemas of what may."""
