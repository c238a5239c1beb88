"""The ``holdfast`` command: one verb per file."""
