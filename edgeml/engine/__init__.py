"""Runs a resolved graph on this machine: snapshots, steps in parallel, reuse by content, one folder a run."""
