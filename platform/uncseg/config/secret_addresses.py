"""Addresses of servers and databases: what in them is secret, and texts without it.

An address is kept with a run, sent to MLflow and printed, so it must not hold a password or a token. As nobody can list
the names of all secrets, an address has no parameters but those of :data:`HARMLESS`.
"""

import re
from urllib.parse import unquote, unquote_plus

# all repetitions are bounded: a text may be long
_WORDS = (
    "pass(?:w(?:or)?d|phrase|code)?|pwd|token|secret|credential|signature|"
    "(?:(?<![a-z])|api|access|account|shared)key|(?<![a-z])auth(?:orization)?"
)
_NAMES = rf"[\w.-]{{0,40}}(?:{_WORDS})s?(?![a-z])[\w.-]{{0,40}}|sig"
_FILE_NAMES = re.compile(r"ssl[_-]?key|passfile|\w{0,40}keyfile", re.I)
"""Parameters that name a file with a secret, not the secret."""
_SECRET_VALUE = re.compile(rf"(?<![\w.-])({_NAMES})(=|%3D)((?:(?!%3B)[^&;\s'\"])+)", re.I)
_HARMLESS = """
sslmode sslcert sslkey sslrootcert sslcrl ssl_ca ssl_cert ssl_key ssl_check_hostname passfile read_default_file
connect_timeout timeout application_name target_session_attrs channel_binding gssencmode client_encoding charset
host hostaddr port user dbname unix_socket driver encrypt trustservercertificate trusted_connection
mode cache uri check_same_thread
"""
HARMLESS = frozenset(_HARMLESS.split())
"""Parameters of databases that hold no secret, in lower case."""
_HARMLESS_VALUE = re.compile(r"[\w .,:/\\{}()+-]*")
_BEGINNING = re.compile(r"\s*([a-z][a-z0-9+.-]{0,30}):(?=[/\\])", re.I)
_ON_DISK = re.compile(r"(?:sqlite|file)[a-z+]{0,30}:(?!//[^/])", re.I)
# a model's alias follows an @
_ADDRESS = re.compile(r"(?<![\w+.-])(?!(?:models|runs):/)([a-z][a-z0-9+.-]{0,30}:/{1,2})(\S{1,4000})", re.I)
_SPACED_PASSWORD = re.compile(
    r"(?<![\w+.-])([a-z][a-z0-9+.-]{0,30}:/{1,2})[^\s/@:]{0,200}:(?!\s|\d{1,5}(?:[\s/,;:)]|$))[^@/]{1,500}@", re.I
)
_BEFORE_HOST = re.compile(r"(?<![\w/:.])(//)[^/@\s]{1,500}@|(?<![/\w.:+-])[^\s/@:'\"(]{1,200}:[^\s/@]{1,200}@()")
ADVICE = (
    "write the address without it, and put it into the environment (MLFLOW_TRACKING_USERNAME and "
    "MLFLOW_TRACKING_PASSWORD or MLFLOW_TRACKING_TOKEN for a server, PGPASSWORD for PostgreSQL)"
)


def secret_in(address: str) -> str | None:
    """Return what an address holds that is or may be secret, in words; None if there is nothing.

    A server's address (MLflow's, Ray's) has no place for a user's name without a password: before the host stands a
    token then. A database's has, and only a password is secret there. Files (``sqlite:``, a plain path) have no host.
    """
    beginning = _BEGINNING.match(address)
    scheme = beginning[1].lower() if beginning else ""
    on_disk = _ON_DISK.match(address) is not None or (not beginning and re.match(r"[/.](?!/)", address) is not None)
    rest = address[beginning.end() :].lstrip("/\\") if beginning else address.removeprefix("//")
    place, *after = re.split(r"\?" if on_disk else r"[?#;]", rest, maxsplit=1)
    place = unquote(place)
    if not on_disk and scheme.startswith(("http", "ray")) and "@" in place.partition("/")[0]:
        return "a user name, a password or a token before the host"
    # a password may hold a slash
    if not on_disk and "@" in place and ":" in place.rpartition("@")[0]:
        return "a password before the host"
    fragment = not on_disk and "#" in address
    if after and after[0] and (fragment or scheme.startswith(("http", "ray")) or not _are_harmless(after[0])):
        return "parameters that may be secret"
    return None


def masked(text: str) -> str:
    """Return a text with *** in place of the secrets of all addresses in it, and of all parameters of addresses."""
    text = _SPACED_PASSWORD.sub(lambda found: found[0] if _ON_DISK.match(found[0]) else f"{found[1]}***@", text)
    text = _ADDRESS.sub(lambda found: found[1] + _without_secrets(found[2], bool(_ON_DISK.match(found[0]))), text)
    text = _BEFORE_HOST.sub(lambda found: f"{found[1] or ''}***@", text)
    return _SECRET_VALUE.sub(
        lambda found: found[0] if _FILE_NAMES.fullmatch(found[1]) else f"{found[1]}{found[2]}***", text
    )


def masked_value(value: str) -> str:
    """Return the text of one value that may be an address, for a message: *** alone where it holds a secret."""
    bare = value.strip("'\"()[]{} ")
    may_be = _BEGINNING.match(bare) is not None or "@" in bare
    return "***" if may_be and secret_in(bare) else masked(value.replace("\n", "\\n"))


def _are_harmless(parameters: str) -> bool:
    for part in re.split(r"[&;]", parameters):
        name, _, value = part.partition("=")
        if name.lower() not in HARMLESS or _HARMLESS_VALUE.fullmatch(unquote_plus(value)) is None:
            return False
    return True


def _without_secrets(rest: str, on_disk: bool) -> str:
    """Return what follows the scheme of an address, without what stands before the host and without parameters."""
    place = re.split(r"\?" if on_disk else r"[?#;]", rest, maxsplit=1)[0]
    sign, after = rest[len(place) : len(place) + 1], rest[len(place) + 1 :]
    before, _, after_at = place.rpartition("@")
    if not on_disk and (":" in before or "@" in place.partition("/")[0]):  # a password may hold a slash
        place = f"***@{after_at}"
    return f"{place}{sign}{'***' if after else ''}"
