"""Every flag of `docker service create` and `update` is there, under the same name and the same letter."""

from __future__ import annotations

import click
import pytest

from pyswarm_cli.commands.service_create import create
from pyswarm_cli.commands.service_update import update

# As docker 28 tells them with --help; a letter stands behind a colon.
CREATE = """
cap-add cap-drop config constraint container-label credential-spec detach:d dns dns-option dns-search endpoint-mode
entrypoint env:e env-file generic-resource group health-cmd health-interval health-retries health-start-interval
health-start-period health-timeout host hostname init isolation label:l limit-cpu limit-memory limit-pids log-driver
log-opt max-concurrent replicas mode mount name network no-healthcheck no-resolve-image oom-score-adj placement-pref
publish:p quiet:q read-only replicas replicas-max-per-node reserve-cpu reserve-memory restart-condition
restart-delay restart-max-attempts restart-window rollback-delay rollback-failure-action rollback-max-failure-ratio
rollback-monitor rollback-order rollback-parallelism secret stop-grace-period stop-signal sysctl tty:t ulimit
update-delay update-failure-action update-max-failure-ratio update-monitor update-order update-parallelism user:u
with-registry-auth workdir:w
"""
UPDATE = """
args cap-add cap-drop config-add config-rm constraint-add constraint-rm container-label-add container-label-rm
credential-spec detach:d dns-add dns-option-add dns-option-rm dns-rm dns-search-add dns-search-rm endpoint-mode
entrypoint env-add env-rm force generic-resource-add generic-resource-rm group-add group-rm health-cmd
health-interval health-retries health-start-interval health-start-period health-timeout host-add host-rm hostname
image init isolation label-add label-rm limit-cpu limit-memory limit-pids log-driver log-opt max-concurrent replicas
mount-add mount-rm network-add network-rm no-healthcheck no-resolve-image oom-score-adj placement-pref-add
placement-pref-rm publish-add publish-rm quiet:q read-only replicas replicas-max-per-node reserve-cpu reserve-memory
restart-condition restart-delay restart-max-attempts restart-window rollback rollback-delay rollback-failure-action
rollback-max-failure-ratio rollback-monitor rollback-order rollback-parallelism secret-add secret-rm
stop-grace-period stop-signal sysctl-add sysctl-rm tty:t ulimit-add ulimit-rm update-delay update-failure-action
update-max-failure-ratio update-monitor update-order update-parallelism user:u with-registry-auth workdir:w
"""
NUMBERS = {"create": 74, "update": 93}  # and --help


@pytest.mark.parametrize(("command", "table"), [(create, CREATE), (update, UPDATE)], ids=["create", "update"])
def test_every_flag_of_docker_is_there(command: click.Command, table: str) -> None:
    spellings = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    wanted = table.split()
    assert len(wanted) == NUMBERS[command.name or ""]
    missing = [name for name in wanted if f"--{name.partition(':')[0]}" not in spellings]
    assert missing == []


@pytest.mark.parametrize(("command", "table"), [(create, CREATE), (update, UPDATE)], ids=["create", "update"])
def test_every_letter_means_what_it_means_in_docker(command: click.Command, table: str) -> None:
    letters = {
        f"--{name}": f"-{letter}" for name, _, letter in (word.partition(":") for word in table.split()) if letter
    }
    ours = {long: option.opts for option in command.params for long in option.opts if long in letters}
    assert set(ours) == set(letters)
    assert [long for long, spellings in ours.items() if letters[long] not in spellings] == []
