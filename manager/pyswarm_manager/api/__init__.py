"""What users, dashboards and other managers call: control, watch, logs, health, and who may call what."""
