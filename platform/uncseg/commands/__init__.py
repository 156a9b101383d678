"""What the subcommands do, one file each, for the command line and for Ray jobs alike.

Running a command again continues it: finished parts are not repeated. Each file imports only what its own command
needs, because torch and nnU-Net take seconds to load.
"""
