"""Private steps: what they may reach, what may be seen of them, and what of theirs is taken over.

A step is private when it sees private rows or what was made of them (`policy.private_steps`). Its streams go to the
run's quarantine and only its author's own words are shown (`words`); its outputs are files and folders and nothing
else. In a sandbox, which is bubblewrap (`bwrap`) or a container (`container`), it has no network, no credential and
no process but its own, reads what it was given, writes its outputs, logs to a store of its own (`metrics`, `ledger`)
and ends with its first process. The one step that needs the storage reaches that address alone (`storage`, `relay`).

Imported only where a step is private.
"""
