"""A later version of the template, merged into a fork that shares no history with it.

Three trees make a merge: the version that the fork has, the later one, and the fork. In the first two, all files of
the team are replaced by the fork's own, so they are the same on every side and no merge can touch them; what is left is
what git merges well. The result is one commit on a branch of its own, for a pull request: working tree and branch stay
as they are, and whatever ends this in the middle has changed nothing. Only a real conflict is laid out in the working
tree, as `git cherry-pick` does it.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Literal, NamedTuple

from edgeml.errors import EdgemlError
from edgeml.fork import line as lines
from edgeml.fork import record as records
from edgeml.fork.git import Git, said
from edgeml.fork.record import Version
from edgeml.gitops import tag as tags

if TYPE_CHECKING:
    from edgeml.fork.git import Entries

BRANCH = "edgeml/upgrade/{version}"
FETCHED = "refs/edgeml/template"
OLDEST_GIT = (2, 38)  # `git merge-tree --write-tree`
_REF = re.compile(r"(?!.*(?:\.\.|//|@\{))[A-Za-z0-9_][A-Za-z0-9._/-]{0,199}")
_URL = re.compile(r"[a-z+]+://|[^/@:]+@[^/:]+:")
_WITH_PASSWORD = re.compile(r"[a-z+]+://[^/@]*:[^/@]*@|https?://[^/@]+@")
_NO_RENAMED_FOLDERS = ("-c", "merge.directoryRenames=false")  # what the team adds stays where the team put it

Action = Literal["made", "none", "waits", "dry-run", "conflict"]


class Outcome(NamedTuple):
    """What became of it: `none` where the fork has the version, `waits` where the branch holds the merge already."""

    action: Action
    version: str
    """The tag that was asked for, else the first digits of the commit."""
    commit: str = ""
    """Of the template."""
    branch: str = ""
    changes: tuple[str, ...] = ()
    """What the merge changes in the fork, as `STATUS PATH`."""
    yours: tuple[str, ...] = ()
    """The team's files of which the template has another sample now, likewise; none of it is taken."""
    conflicts: tuple[str, ...] = ()


class _Merge(NamedTuple):
    """The three sides as commits, and the tree that git makes of them."""

    theirs: str
    tree: str
    conflicts: tuple[str, ...]


def upgrade(git: Git, source: str = "", ref: str = "", base: str = "", *, dry_run: bool = False) -> Outcome:
    """Merge the version `ref` of the template at `source`: a remote, an address or a path.

    Without `source`, the recorded one; without `ref`, the newest release tag. `base` names the version that the fork
    has where none is recorded. Raises EdgemlError where the fork is not clean, or the versions cannot be told.
    """
    _ready(git)
    text = git.text_at("HEAD", records.FILE)
    recorded = records.parse(text) if text else None
    if recorded is None and not base:
        raise EdgemlError(
            f"no version of the template is recorded in the commit that is checked out; run `edgeml init` and commit "
            f"{records.FILE}, or name the version that this fork has: --base TAG"
        )
    source = _source(git, source or (recorded.source if recorded else ""))
    ref = ref or _newest(git, source)
    commit = _fetch(git, source, ref)
    version = ref if tags.parse(ref) else commit[:12]
    trees = git("log", "--format=%T", commit).split()
    before = git("rev-parse", f"{_fetch(git, source, base)}^{{tree}}") if base else recorded.tree if recorded else ""
    if before not in trees:
        raise EdgemlError(
            f"{version} at {source} does not come from what this fork has ({before[:12]}): it is older, or of another "
            "repository; name a later version by --ref, or the one that the fork has by --base",
            1,
        )
    after = trees[0]
    if before == after:
        return Outcome("none", version, commit)
    kept = _address(source) or (recorded.source if recorded else "")
    merge, yours = _merge(git, before, after, Version(after, kept), _message(version, commit))
    branch = BRANCH.format(version=version)
    outcome = Outcome("made", version, commit, branch, _changes(git, "HEAD", merge.tree), yours, merge.conflicts)
    if dry_run:
        return outcome._replace(action="dry-run")
    if merge.conflicts:
        return _lay_out(git, outcome, merge)
    return _keep(git, outcome, merge)


def _ready(git: Git) -> None:
    if not git.is_top():
        raise EdgemlError(f"{git.root} is not the top of a git repository; run this in the fork")
    found = tuple(map(int, re.findall(r"\d+", git("--version"))[:2]))
    if found < OLDEST_GIT:
        raise EdgemlError(f"this is git {'.'.join(map(str, found))}; `edgeml upgrade` needs 2.38 or newer, install it")
    if git.ask("rev-parse", "--verify", "--quiet", "CHERRY_PICK_HEAD"):
        raise EdgemlError(
            "a merge is under way here: resolve what `git status` shows and `git cherry-pick --continue`, "
            "or undo it by `git cherry-pick --abort`",
            1,
        )
    if git("status", "--porcelain", "--untracked-files=no"):
        raise EdgemlError("the working tree has changes; commit or `git stash` them, then run again", 1)


def _source(git: Git, source: str) -> str:
    """Where to fetch from, a remote by its address."""
    if not source:
        raise EdgemlError("where the template is was never said; give its repository's address by --from, once")
    if source.startswith("-"):
        raise EdgemlError(f"'{source}' is no repository; give a remote, an address or a path by --from")
    address = git.ask("remote", "get-url", source) or source
    if _WITH_PASSWORD.match(address):
        raise EdgemlError("the template's address holds a credential; leave it out, git's credential helper has it")
    if not _URL.match(address) and os.path.exists(address):
        return os.path.abspath(address)
    return address


def _address(source: str) -> str:
    """A source as it may be recorded: a path is of one machine."""
    return source if _URL.match(source) else ""


def _newest(git: Git, source: str) -> str:
    listed = git("ls-remote", "--tags", "--refs", "--", source, "v*").split()[1::2]
    found = [tag for tag in map(tags.parse, listed) if tag]
    if not found:
        raise EdgemlError(f"{source} has no release tag such as v1.2.0; name a branch, tag or commit by --ref", 1)
    return str(max(found))


def _fetch(git: Git, source: str, ref: str) -> str:
    """The commit of a version, fetched with its history."""
    if not _REF.fullmatch(ref):
        raise EdgemlError(f"'{ref}' is no branch, tag or commit")
    done = git.run("fetch", "--quiet", "--no-tags", "--", source, f"+{ref}:{FETCHED}")
    if done.returncode != 0:
        raise EdgemlError(f"{ref} cannot be had from {source}: {said(done)}", 1)
    return git("rev-parse", f"{FETCHED}^{{commit}}")


def _merge(git: Git, before: str, after: str, version: Version, message: str) -> tuple[_Merge, tuple[str, ...]]:
    """The merge, and what the template has changed of its samples on the team's side."""
    fork, old, new = (git.entries(tree) for tree in ("HEAD", before, after))
    # The fork's line and the later one: a file that goes over to either side is the fork's this time.
    drawn = [lines.parse(text) for tree in ("HEAD", after) if (text := git.text_at(tree, lines.FILE)) is not None]
    if not drawn:
        raise EdgemlError(f"neither the fork nor the later version has {lines.FILE}; restore it with git", 1)
    teams = lines.team_paths(drawn, fork | old | new)
    ours = {path: what for path, what in fork.items() if path in teams}
    samples = tuple(change for change in _differences(old, new) if change[2:] in teams and change[2:] != records.FILE)
    base = git.commit_tree(git.write_tree(_with(old, teams, ours)), "the version that the fork has")
    record = {records.FILE: git.write_blob(version.text())}
    theirs = git.commit_tree(git.write_tree(_with(new, teams, ours | record)), message, base)
    side = git.commit_tree(git("rev-parse", "HEAD^{tree}"), "the fork", base)
    done = git.run(
        *_NO_RENAMED_FOLDERS, "merge-tree", "--write-tree", "-z", "--name-only", "--no-messages", side, theirs
    )
    if done.returncode > 1:
        raise EdgemlError(f"git merge-tree: {said(done)}", 1)
    tree, *conflicts = filter(None, done.stdout.split("\0"))
    return _Merge(theirs, tree, tuple(conflicts)), samples


def _with(template: Entries, teams: set[str], ours: Entries) -> Entries:
    return {path: what for path, what in template.items() if path not in teams} | ours


def _differences(old: Entries, new: Entries) -> list[str]:
    paths = sorted(old.keys() | new.keys())
    signs = {path: "D" if path not in new else "A" if path not in old else "M" for path in paths}
    return [f"{signs[path]} {path}" for path in paths if old.get(path) != new.get(path)]


def _changes(git: Git, before: str, after: str) -> tuple[str, ...]:
    return tuple(_differences(git.entries(before), git.entries(after)))


def _keep(git: Git, outcome: Outcome, merge: _Merge) -> Outcome:
    """The branch with the merge as one commit. A branch that holds something else is left alone."""
    head, there = git("rev-parse", "HEAD"), _tip(git, outcome.branch)
    if there and there != head:
        if git.ask("rev-parse", f"{there}^", f"{there}^{{tree}}").split() != [head, merge.tree]:
            raise _occupied(outcome.branch)
        return outcome._replace(action="waits")
    made = git.commit_tree(merge.tree, git("log", "-1", "--format=%B", merge.theirs), head)
    # Told what the branch was, git refuses where somebody else was faster.
    git("update-ref", "-m", "edgeml upgrade", f"refs/heads/{outcome.branch}", made, there or "0" * len(made))
    return outcome


def _lay_out(git: Git, outcome: Outcome, merge: _Merge) -> Outcome:
    """The conflict in the working tree, on the branch, as git leaves one."""
    head, there = git("rev-parse", "HEAD"), _tip(git, outcome.branch)
    if there and there != head:
        raise _occupied(outcome.branch)
    git("switch", "--quiet", *([] if there else ["--create"]), outcome.branch)
    done = git.run(*_NO_RENAMED_FOLDERS, "cherry-pick", merge.theirs)
    if done.returncode == 0:  # git remembered how it was resolved before
        return outcome._replace(conflicts=())
    if not git.ask("rev-parse", "--verify", "--quiet", "CHERRY_PICK_HEAD"):
        raise EdgemlError(f"git cherry-pick: {said(done)}", 1)
    return outcome._replace(action="conflict")


def _tip(git: Git, branch: str) -> str:
    return git.ask("rev-parse", "--verify", "--quiet", f"refs/heads/{branch}")


def _occupied(branch: str) -> EdgemlError:
    return EdgemlError(
        f"the branch {branch} is not what would be made now; merge it first, or `git branch -D {branch}`",
        1,
    )


def _message(version: str, commit: str) -> str:
    return (
        f"Upgrade the template to {version}\n\nThe template's commit {commit}, merged by `edgeml upgrade`: what "
        f"{lines.FILE}\ngives to the team is as it was.\n"
    )
