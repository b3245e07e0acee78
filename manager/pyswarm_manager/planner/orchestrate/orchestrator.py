"""The orchestrate stage: looks at the services and slots that are dirty, and decides which tasks exist.

A service is looked at as a whole when its spec changed or while an update runs (the update counts over all slots);
otherwise only the slots that something happened in.
"""

from __future__ import annotations

from pyswarm_common.model import Service, ServiceMode, Task, TaskState
from pyswarm_manager.planner.draft import Draft
from pyswarm_manager.planner.orchestrate import (
    cron,
    dependencies,
    global_,
    jobs,
    rebalance,
    replicated,
    restarts,
    update,
)
from pyswarm_manager.planner.orchestrate.slots import Verdict, dismiss
from pyswarm_manager.planner.orchestrate.work import Work
from pyswarm_manager.store.tables import SlotKey


def orchestrate_service(draft: Draft, service_id: str) -> None:
    """Look at the whole service."""
    service = draft.service(service_id)
    slots = draft.tables.slots.get(service_id, {})
    if service is None:
        for key, tasks in slots.items():
            _dismiss_orphans(draft, service_id, key, tasks)
        return
    service = dependencies.release(draft, service)
    if service.spec.mode.is_job:
        _orchestrate_job(draft, service)
        return
    work = Work(draft, service)
    progress = update.progress_of(work, slots)
    judged = update.judge(work, progress)
    if judged.spec is not service.spec:
        return  # rolled back: the next plan goes on from the committed spec
    work = work if judged is service else Work(draft, judged)
    work.drain.update_open = progress.open if update.is_running(judged) else None
    outdated = global_.reconcile(work, slots) if work.is_global else replicated.reconcile(work, slots)
    progress.open += work.drain.opened
    _advance(work, slots, outdated, progress)


def _advance(work: Work, slots: update.Slots, outdated: list[SlotKey], progress: update.Progress) -> None:
    """An update replaces everything that is outdated; without one, what users asked to restart is replaced alone."""
    asked = restarts.asked_for(work, slots, outdated)
    is_alone = len(asked) == len(outdated) and restarts.are_by_the_spec(work, slots, outdated)
    if asked and not update.is_running(work.service) and (is_alone or update.is_held(work.service)):
        restarts.advance(work, slots, asked)
    else:
        update.advance(work, slots, outdated, progress)
    if not outdated and work.service.id in work.draft.ledger.rebalancing and not update.is_running(work.service):
        rebalance.advance(work, slots)


def orchestrate_slots(draft: Draft, service_id: str, keys: list[SlotKey]) -> None:
    """Look at some slots, or at the whole service if that turns out to be needed."""
    service = draft.service(service_id)
    slots = draft.tables.slots.get(service_id, {})
    if service is None:
        for key in keys:
            _dismiss_orphans(draft, service_id, key, slots.get(key, ()))
        return
    if service.awaits_dependencies or service_id in draft.ledger.restarting:
        orchestrate_service(draft, service_id)
        return
    if service.spec.mode.is_job:
        if not jobs.is_at_rest(draft, service, keys):
            _orchestrate_job(draft, service)
        return
    if update.is_running(service) or service_id in draft.ledger.rebalancing:
        orchestrate_service(draft, service_id)
        return
    work = Work(draft, service)
    settle = global_.reconcile_slot if work.is_global else replicated.reconcile_slot
    keys = list(dict.fromkeys((*keys, *work.drain.keys())))
    outdated = [key for key in keys if settle(work, key, slots.get(key, ())) is Verdict.OUTDATED]
    if outdated:
        _advance(work, slots, outdated, update.Progress())


def _orchestrate_job(draft: Draft, service: Service) -> None:
    if service.spec.mode is ServiceMode.CRON:
        cron.orchestrate(draft, service)
    else:
        jobs.orchestrate(draft, service)


def _dismiss_orphans(draft: Draft, service_id: str, key: SlotKey, tasks: tuple[Task, ...]) -> None:
    """Tasks whose service was removed."""
    dismiss(Work(draft, Service(id=service_id)), key, tasks, TaskState.REMOVE)
