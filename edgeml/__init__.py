"""Train machine-learning models beside data that may not leave."""

import os

__version__ = "0.1.0"

# ONNX Runtime since 1.29 keeps an identifier below the home folder and sends events to its maker. Only this variable,
# set before it is imported, stops all of it: its `disable_telemetry_events` comes too late for the first ones.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
