"""A release from start to end: what the Hub has, the steps that are missing, stale cards, then ``main``."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, replace

from publish.hub.client import Client
from publish.hub.repository import check_name
from publish.interrupt import Interrupted, Stop
from publish.release.cards import NOTHING_PUSHED, update_stale_cards
from publish.release.committer import Committer
from publish.release.comparisons import check_comparisons
from publish.release.executors import Executor
from publish.release.facts import hub_address
from publish.release.job import Job
from publish.release.main_branch import is_finished, publish_main
from publish.release.outcome import MainResult, Outcome
from publish.release.preflight import preflight
from publish.release.progress import Progress
from publish.release.repair import BranchRepair, Repair
from publish.release.state import read_state
from publish.release.work_dir import WorkDir
from publish.text import count


@dataclass(frozen=True, slots=True)
class Options:
    """``private``: create the repo private. ``repair``: publish what an audit found wrong, and nothing else."""

    private: bool = False
    repair: Repair | None = None


def release(
    job: Job, client: Client, work_dir: WorkDir, options: Options, executor: Executor, stop: Stop, progress: Progress
) -> Outcome:
    """Publish every chosen step that the Hub does not have as it should be, then ``main``.

    A step that fails does not stop the others. A release that is finished makes no commit.

    Raises:
        PublishError: the release cannot start. What goes wrong with a step is in the outcome.
        Interrupted: Ctrl-C; it says how many steps are published and how many remain.
    """
    started = time.monotonic()
    job = replace(job, hub=hub_address(client.endpoint))
    check_name(job.model.repo)
    check_comparisons(job.release, job.steps)
    if job.release.commits_per_hour is not None:
        client.commits.set_limit(job.model.repo, job.release.commits_per_hour)
    state = read_state(job, client)
    if options.repair is None and is_finished(state):
        main = MainResult("unchanged", "as it should be")
        seconds = time.monotonic() - started
        return Outcome.of_branches(job.model.repo, state.address, main, (), skipped=job.chosen, seconds=seconds)
    base = preflight(job, client, work_dir.folder, executor.limit, private=options.private)
    repair = BranchRepair(options.repair, state, base) if options.repair else None
    steps = repair.wrong_steps() if repair else state.to_make()
    foreign = () if repair else state.foreign()
    progress.start(len(job.chosen), len(job.chosen) - len(steps) - len(foreign))
    with Committer(client, base, state, repair, stop, progress) as committer:
        try:
            for failure in foreign:
                committer.take(failure)
            with closing(executor.make(state.tasks(steps), stop, committer.refused)) as results:
                for result in results:
                    committer.take(result)
            committer.wait()
            cards = NOTHING_PUSHED if repair else update_stale_cards(job, client, state)
            now = read_state(job, client, known=committer.records())
            main = publish_main(now, base, committer.manifests(), repair)
        except (KeyboardInterrupt, Interrupted) as error:
            stop.set()
            remaining = len(steps) + len(foreign) - len(committer.branches)
            published = count(len(job.chosen) - remaining, "step")
            what = f"interrupted: {published} published, {remaining:,} remaining"
            raise Interrupted(what, job.model.repo, "run the same command again to continue") from error
    branches = committer.branches.values()
    to_do = {*steps, *(failure.step for failure in foreign)} - {
        branch.step for branch in branches if not branch.committed
    }
    failed = (*committer.failed, *cards.failed, *main.failures)
    other_commits = len(cards.branches) + (main.status == "published") + (len(repair.emptied) if repair else 0)
    return Outcome.of_branches(
        job.model.repo,
        state.address,
        main,
        branches,
        skipped=tuple(step for step in job.chosen if step not in to_do),
        failed=tuple(sorted(failed, key=lambda failure: (failure.step is None, failure.step))),
        left=repair.repair.left if repair else (),
        commits=sum(branch.committed for branch in branches) + other_commits,
        seconds=time.monotonic() - started,
    )
