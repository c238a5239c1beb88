"""Commands, files and jobs over one SSH login that stays open."""

__version__ = "0.1.0.dev0"
