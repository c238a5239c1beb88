"""The ``holdfast`` command: :mod:`main` finds the verb, ``verbs/`` has one file for each."""
