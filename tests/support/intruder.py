"""An object whose pickle runs code of its own when it is read without care."""

import os


class Intruder:
    """Makes a folder when it is unpickled in full."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)
