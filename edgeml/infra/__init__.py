"""The edge VM, the cloud side and the repository as code: what is there is compared with what is written down."""
