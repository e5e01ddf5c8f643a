"""The Azure ML v2 pipeline format: YAML in, a resolved graph out.

The ground floor of the package: pure apart from reading files, and importing nothing but PyYAML.
`resolve(path, ...)` is its face.
"""

from edgeml.pipeline.graph import Graph, Step
from edgeml.pipeline.resolve import resolve
from edgeml.pipeline.source import PipelineError

__all__ = ["Graph", "PipelineError", "Step", "resolve"]
