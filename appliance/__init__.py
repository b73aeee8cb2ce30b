"""The floor that both daemons stand on: settings, logs, systemd, and the shape of web answers."""
