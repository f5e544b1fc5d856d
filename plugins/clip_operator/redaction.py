"""What must not stand in a log, a message or a record: secrets, and characters that forge lines.

One rule for what is refused and what is masked, so that neither knows less than the other.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

# C0, DEL and C1; the separators that some take for ends of lines; what turns the direction of writing; half surrogates,
# which no log can be written with. Letters of every language, and what joins emoji, are none of these.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# Airflow's UI folds what stands between two of these, wherever in a line they stand.
_FOLDING = re.compile(r"::(?=(?:end)?group::)")

_MARK = "…"
_WEB = frozenset({"http", "https"})
_BUCKETS = frozenset({"s3", "s3a", "s3n", "gs", "gcs", "az"})  # whose URIs begin with a name that holds no colon
_KNOWN = "s3[an]?|gc?s|abfss?|az|https?|ftps?"  # which, where a slash was forgotten, were meant for URIs all the same
# What comes first in a URI. A lookahead, so that what stands in it, as in simplecache::s3://…, is looked at by itself.
_AUTHORITY = re.compile(
    r"(?<![A-Za-z])"
    rf"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{{1,40}})://|(?P<known>{_KNOWN}):/)(?P<more>/*)"
    r"(?=(?P<authority>[^/\s'\"]*)(?P<slash>/?))",
    re.IGNORECASE,
)
_HOSTS = re.compile(r"(?:\[[^\]]*\]?|[^:,]*)(?::\d{1,5})?(?:,[^:,]*(?::\d{1,5})?)*")
_ARN = re.compile(r"arn:[a-z-]+:s3[a-z-]*:[a-z0-9-]*:\d{12}:[a-z]+[/:]?[A-Za-z0-9.:-]*")  # an access point's
_SENTENCE = ",;.:)>]}"  # what follows a URI in a sentence
_SPACE = re.compile(r"\s")
_QUERY = re.compile(r"[?#](?!…)[^\s'\"<>]*")  # and none that is masked already: escaped letters may follow it
_WORD = re.compile(r"[^\s'\"<>]+")
_WEB_ADDRESS = re.compile(r"https?:/", re.IGNORECASE)
_SECRET_PARAMETER = re.compile(
    r"[?#&;](?:[\w.-]{0,80}?[._-])?(?:sig|signature|token|secret|pass|passwd|password|pwd|key|credentials?|jwt"
    r"|authorization|(?:aws)?accesskeyid|(?:access|account|api|auth|id|refresh|sas|secret)(?:key|token))=[^&;]",
    re.IGNORECASE,
)
# Keys and tokens that are known by their looks: private keys, JSON Web Tokens, GitHub's, Hugging Face's.
_TOKEN = re.compile(
    r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY(?s:.*?)(?:-----END [A-Z ]{0,20}PRIVATE KEY-----|\Z)"
    r"|(?<![\w-])eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*|\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_\w{20,}|\bhf_[A-Za-z0-9]{30,}"
)


def one_line(text: str) -> str:
    """Return the text as one line that says what it says and does nothing: control characters are escaped, as in
    Python, and so are the commands by which Airflow folds lines of a log."""
    shown = _CONTROL.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), text)
    return _FOLDING.sub(r"\\x3a:", shown)


def without_secrets(text: str) -> str:
    """Return the text, such as a URI or what an exception says, without what may be a secret.

    What goes: user names and passwords in URIs, also with slashes in them; queries of web addresses, and others that
    hold a parameter called like a secret; tokens and private keys that are known by their looks.
    """
    return _WORD.sub(_without_web_query, without_tokens(without_users(text)))


def without_tokens(text: str) -> str:
    """Return the text without queries that hold a parameter called like a secret, tokens and private keys."""
    shown = _QUERY.sub(lambda match: match[0][0] + _MARK if _SECRET_PARAMETER.search(match[0]) else match[0], text)
    return _TOKEN.sub(_MARK, shown)


def plain(text: str) -> str:
    """Return the text as it may stand in a log or a message: in one line, and without secrets."""
    return one_line(without_secrets(text))


def holds_secret(uri: str) -> bool:
    """Tell whether a URI holds a password or a token, or may: a web address has a query.

    Paths of local files hold none, whatever they are called.
    """
    whole = re.sub(rf"^({_KNOWN}):(?!/)", r"\1://", uri, flags=re.IGNORECASE)
    is_path = whole.lower().startswith("file:") or ("://" not in whole and not whole.startswith("hf:"))
    masked = without_users if is_path else without_secrets
    return any(masked(text) != text for text in (whole, unquote(whole)))


def without_users(text: str) -> str:
    """Return the text with no user and password before a URI's bucket or host."""
    parts, at, end = [], 0, 0
    for match in _AUTHORITY.finditer(text):
        start = match.end()
        if end <= start:
            space = _SPACE.search(text, start)
            end = space.start() if space else len(text)
        last = text.rfind("@", start, end) + 1
        if start >= at and _has_user(match, last > 0):
            parts += [text[at:start]] if last else [text[at:start], _MARK]
            at = last or end
    return "".join([*parts, text[at:]])


def _without_web_query(word: re.Match[str]) -> str:
    address, mark, query = word[0].partition("?")
    is_web = _WEB_ADDRESS.search(address) or word.string.endswith("url: ", 0, word.start())  # as urllib3 says it
    return f"{address}?{_MARK}" if mark and is_web and not query.startswith(_MARK) else word[0]


def _has_user(match: re.Match[str], at_follows: bool) -> bool:
    """Tell whether what stands where a URI has its bucket or host begins with a user and a password.

    A password may hold a slash, which ends the host: then there is a colon where no port follows, and an @ later.

    :param at_follows: there is an @ somewhere behind.
    """
    scheme = (match["scheme"] or match["known"]).lower()
    if scheme == "file" and match["more"]:  # a path, which may hold anything
        return False
    authority = match["authority"] if match["slash"] else match["authority"].rstrip(_SENTENCE)
    user, mark, host = authority.rpartition("@")
    if mark and (user.strip(":") if scheme in _WEB | _BUCKETS - {"az"} else user.partition(":")[2]):
        return True
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]+:", host) and match.string.startswith("//", match.end("authority")):
        return False  # another URI, which is looked at by itself
    if scheme in _BUCKETS:
        return ":" in host and _ARN.fullmatch(host) is None
    return at_follows and _HOSTS.fullmatch(host) is None
