"""What the edge VM is sent and executes: standard library only, Python 3.8 and later."""
