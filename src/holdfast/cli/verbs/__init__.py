"""One module per verb, each with DESCRIPTION, EPILOG, ``configure(parser)`` and ``main(args)``.

``main`` returns the exit status and lets errors through: :func:`holdfast.cli.main.main` alone turns
them into words and a status.
"""
