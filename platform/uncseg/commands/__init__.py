"""What the subcommands do, for the command line and for Ray jobs alike; those of studies are in ``studies/``.

Running a command again continues it: finished parts are not repeated. Each file imports only what its own command
needs, because torch and nnU-Net take seconds to load.
"""
