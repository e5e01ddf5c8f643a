"""azure-ai-ml reads and validates the chain; no step is run."""

from azure.ai.ml import load_job

job = load_job("pipeline.yml")
assert job._validate().passed and list(job.jobs) == ["s1", "s2", "s3", "s4", "s5"]
