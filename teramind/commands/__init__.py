"""The subcommands of `teramind`, one module each.

A module has `add_arguments(parser)` and `run(arguments)`; its docstring's first line is its help.
"""
