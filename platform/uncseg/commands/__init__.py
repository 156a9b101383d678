"""What the subcommands do, one file each, for the command line and for cluster jobs alike.

Running a command again continues it: a finished part is not done twice. Each file imports what its own command needs
and no more: torch and nnU-Net take seconds to load.
"""
