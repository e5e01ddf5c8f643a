"""The edge VM: looked at, prepared, and made to run a pipeline, over SSH or as the machine that this is.

The face of this room:

    check.examine(target) -> [Finding]              what the VM lacks, with cause and fix
    executor.submit(target, pipeline, job, …)       start a job there, or attach to it
    executor.wait(target, job, say) -> Finished     its progress, and what the gate released
    executor.cancel(target, job)
    report.report(run_folder, tracking_uri)         metrics and lineage to an MLflow tracking store

`session` reaches the VM, `agent` and `probe` are the programs that it is sent; everything else runs on this side.
"""
