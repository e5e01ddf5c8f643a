FROM --platform=linux/amd64 pytorch/pytorch:nightly-latest
