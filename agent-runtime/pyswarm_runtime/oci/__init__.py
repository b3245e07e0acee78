"""From a container's configuration to what an OCI runtime reads. Pure."""
