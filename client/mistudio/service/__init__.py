"""The studio as a systemd service: installed, looked at and removed. Standard library, and systemd's own programs."""
