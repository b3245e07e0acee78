"""Update, rollback and restart policies, from flags. Pure."""

from __future__ import annotations

from pyswarm_cli.service.parts.pieces import Options, enum_name, with_given
from pyswarm_common.model import FailureAction, RestartCondition, RestartPolicy, UpdateConfig, UpdateOrder

_DOCKER_DEFAULT_UPDATE = UpdateConfig(parallelism=1)


def apply_to_restart(policy: RestartPolicy, options: Options) -> RestartPolicy:
    """The flags that create and update share."""
    condition = options["restart_condition"]
    return with_given(
        policy,
        condition=None if condition is None else RestartCondition[enum_name(condition)],
        delay_s=options["restart_delay"],
        max_attempts=options["restart_max_attempts"],
        window_s=options["restart_window"],
        max_delay_s=options["restart_max_delay"],
    )


def rollout(config: UpdateConfig | None, options: Options, kind: str) -> UpdateConfig | None:
    """The update or rollback policy; none stays none while no flag of it is given."""
    action, order = options[f"{kind}_failure_action"], options[f"{kind}_order"]
    values = {
        "parallelism": options[f"{kind}_parallelism"],
        "delay_s": options[f"{kind}_delay"],
        "failure_action": None if action is None else FailureAction[enum_name(action)],
        "monitor_s": options[f"{kind}_monitor"],
        "max_failure_ratio": options[f"{kind}_max_failure_ratio"],
        "order": None if order is None else UpdateOrder[enum_name(order)],
    }
    if all(value is None for value in values.values()):
        return config
    return with_given(config or _DOCKER_DEFAULT_UPDATE, **values)
