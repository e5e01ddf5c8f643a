"""Git as the control panel: what must run at a site, how it gets there, and who said so.

The face of this room:

    record.read(root, site) -> Record             what must run at a site, with its bases
    promote.promote(reference, site) -> Outcome   the pull request that brings a model to a site
    gate.decide(site, tag) -> Decision            whether a release tag may deploy, and why not
    rollback.rollback(site) -> Outcome            the pull request that goes back to the record before
    running.at(repository, site), running.begin, running.finish   what runs at a site, kept as GitHub deployments
"""
