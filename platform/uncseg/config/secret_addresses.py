"""Addresses of servers and databases: what in them is secret, and texts without it.

An address is kept with a run, sent to MLflow and printed, so it must not hold a password or a token.
"""

import re
from urllib.parse import parse_qsl, unquote, urlsplit

# all repetitions are bounded: a text may be long
_WORDS = (
    "pass(?:w(?:or)?d|phrase|code)?|pwd|token|secret|credential|signature|"
    "(?:(?<![a-z])|api|access|account|shared)key|(?<![a-z])auth(?:orization)?"
)
_NAMES = rf"[\w.-]{{0,40}}(?:{_WORDS})s?(?![a-z])[\w.-]{{0,40}}|sig"
_SECRET_NAME = re.compile(_NAMES, re.I)
_FILE_NAMES = re.compile(r"ssl[_-]?key|passfile|\w{0,40}keyfile", re.I)
"""Parameters that name a file with a secret, not the secret."""
_SECRET_VALUE = re.compile(rf"(?<![\w.-])({_NAMES})(=|%3D)((?:(?!%3B)[^&;\s'\"])+)", re.I)
_BEFORE_HOST = re.compile(
    r"(?<=\w:/)(/{0,2})[^/@\s]{0,500}@|(?<![\w/:.])(//)[^/@\s]{1,500}@|(?<![/\w.:+-])[^\s/@:'\"(]{1,200}:[^\s/@]{1,200}@()"
)
_PASSWORD_BEFORE_HOST = re.compile(r"[^/:@\s]*:[^/@\s]*@")
ADVICE = (
    "write the address without it, and put it into the environment (MLFLOW_TRACKING_USERNAME and "
    "MLFLOW_TRACKING_PASSWORD or MLFLOW_TRACKING_TOKEN for a server, PGPASSWORD for PostgreSQL)"
)


def secret_in(address: str) -> str | None:
    """Return what kind of secret an address holds, in words; None if there is none.

    A server's address has no place for a user's name without a password: before the host stands a token then. A
    database's has, and only a password is secret there. Files (``sqlite:``, a plain path) have no host.
    """
    scheme, _, rest = address.partition(":")
    scheme = scheme.lower().strip()
    if scheme.startswith("http") and "@" in re.split(r"[/?#]", rest.lstrip("/\\"), maxsplit=1)[0]:
        return "a user name, a password or a token before the host"
    parts = rest.lstrip("/\\") if re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme) and rest[:1] in "/\\" else address
    parts = parts.lstrip("/\\") if parts.startswith("//") else parts
    on_disk = scheme.startswith(("sqlite", "file")) and not rest.startswith("//:")
    if not on_disk and _PASSWORD_BEFORE_HOST.match(re.split(r"[?#]", parts, maxsplit=1)[0]):
        return "a password before the host"
    named = [name for name, value in _parameters(address) if value and _is_secret(name)]
    return f"the parameter {named[0]}" if named else None


def masked(text: str) -> str:
    """Return a text with *** in place of the secrets of all addresses in it."""
    text = _BEFORE_HOST.sub(lambda found: f"{found[1] or found[2] or ''}***@", text)
    return _SECRET_VALUE.sub(lambda found: f"{found[1]}{found[2]}***" if _is_secret(found[1]) else found[0], text)


def _is_secret(name: str) -> bool:
    return _SECRET_NAME.fullmatch(name) is not None and _FILE_NAMES.fullmatch(name) is None


def _parameters(address: str) -> list[tuple[str, str]]:
    """Return names and values of what follows ``?``, ``#`` or ``;``, also of a list that is a value itself."""
    try:
        split = urlsplit(address)
        texts = [split.query, split.fragment]
    except ValueError:  # not an address; what it holds may be secret nevertheless
        texts = [address.partition("?")[2]]
    found: list[tuple[str, str]] = []
    for text in texts:
        for name, value in parse_qsl(text.replace(";", "&"), keep_blank_values=True):
            found += [
                (name.strip(), value),
                *(_pair(part) for part in re.split(r"[;&]", unquote(value)) if "=" in part),
            ]
    return found


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.strip(), value
