"""The cloud half: the Azure ML workspace, its compute, jobs and models."""
