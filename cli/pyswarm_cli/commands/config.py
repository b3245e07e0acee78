"""`pyswarm config …`."""

from __future__ import annotations

from pyswarm_cli import file_commands

_KIND = file_commands.Kind("config")

create = file_commands.create_command(_KIND)
inspect = file_commands.inspect_command(_KIND)
list_configs = file_commands.list_command(_KIND)
remove = file_commands.remove_command(_KIND)
update = file_commands.update_command(_KIND)
