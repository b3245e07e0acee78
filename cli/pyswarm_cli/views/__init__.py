"""From objects to what commands show: rows for lists, docker's JSON shape for `inspect`. Pure."""
