"""Takes credentials out of text that is printed or stored: our own settings', and what looks like anybody's.

In: text of whatever origin, and the secrets of the settings, said once at the start. Out: the text with ``***`` in
their place. Three rules, which docs/logs.md tells: own secrets wherever they stand, what follows a telling name
(``password=…``, ``Authorization: …``, ``//user:…@``), and the shapes of well-known keys.
"""

import json
import re
from collections.abc import Iterable, Set
from functools import lru_cache
from typing import Final
from urllib.parse import quote, quote_plus

import msgspec

from bobrai.telemetry.events import EVENTS

MASK: Final = "***"
SHORTEST: Final = 4  # characters: a shorter secret is in every second word, and masking it would leave nothing to read
_WORD: Final = 8  # characters: a shorter secret counts only where it stands alone, not as a part of a word
# What lines are made of. A secret that is one of these is masked where its place tells that it is one.
_COMMON: Final = frozenset(
    word for name in EVENTS for word in re.split(r"[._]", name)
) | {
    "bobrai", "guest", "postgres", "rabbitmq", "test", "debug", "info", "warning", "error", "critical", "true", "false",
    "null", "none", "event", "level", "module", "exception", "stack", "type", "status", "reason", "seconds", "path",
    "method", "hint", "cause", "service", "ecs", "default",
}  # fmt: skip

_ESCAPE: Final = re.compile(r"%[0-9A-F]{2}")
_MEMORABLE: Final = 128  # characters of a value that is remembered as clean
_REMEMBERED: Final = 4_096

_VALUE: Final = r"""(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|[\[({]*(?:\\*["'])?[^\s"'\\,;&)}\]]+)"""
_AFTER: Final = r"""(?:\\*["'])?\s*[:=]\s*(?:b(?=["']))?"""
# Each with what a text must hold, in lower case, for the pattern to be worth a search.
_PATTERNS: Final = (
    # The credentials of any URL: everything between :// and the last @ before a slash or a space.
    (("://",), re.compile(r"(?<=://)[^/\s]*@"), f"{MASK}@"),
    (
        ("authorization",),
        re.compile(r"(?i)(authorization\W{1,8}(?:basic|bearer|digest|token|negotiate|apikey)\s+)[^\s\"',;)]+"),
        rf"\g<1>{MASK}",
    ),
    (("bearer",), re.compile(r"(?i)\b(bearer\s+)[A-Za-z0-9._~+/=-]{8,}"), rf"\g<1>{MASK}"),
    (
        ("pass", "pwd", "key", "credential", "authorization"),
        re.compile(
            r"(?i)((?:pass(?:word|wd|phrase)|pwd|(?:api|access|secret|private|account)[_-]?key|credentials?|"
            rf"authorization){_AFTER})(?!\*\*\*){_VALUE}"
        ),
        rf"\g<1>{MASK}",
    ),
    # In prose "token:" is a parser's word, so a colon counts in quoted names only.
    (
        ("secret", "token"),
        re.compile(rf"""(?i)((?:secret|token)(?:\s*=\s*|\\*["']\s*[:=]\s*)(?:b(?=["']))?){_VALUE}"""),
        rf"\g<1>{MASK}",
    ),
    (("private key-----",), re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END|\Z)"), MASK),
    # A JSON Web Token. From each word's beginning once, and only when the word has its two points: a search from each
    # of many "eyJ-" to the end would take time by their square.
    (
        ("eyj",),
        re.compile(r"(?<![\w-])(?=[\w-]++\.[\w-]++\.)([\w-]*?)\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"),
        rf"\g<1>{MASK}",
    ),
    (("akia", "asia"), re.compile(r"\bA(?:KIA|SIA)[0-9A-Z]{16}\b"), MASK),
    (("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"), re.compile(r"\bgh(?:[pousr]|ithub_pat)_\w{20,}"), MASK),
    (("sk-", "k_live_", "k_test_"), re.compile(r"\b(?:sk-|[rs]k_(?:live|test)_)[\w-]{20,}"), MASK),
    (("xox",), re.compile(r"\bxox[a-z]-[\w-]{10,}"), MASK),
    (("glpat-",), re.compile(r"\bglpat-[\w-]{16,}"), MASK),
    (("bobrai_",), re.compile(r"\bbobrai_[A-Za-z0-9]+_[\w-]{40,}"), MASK),
)
_SIGNS: Final = tuple(dict.fromkeys(sign for signs, _, _ in _PATTERNS for sign in signs))
_SIGNS_IN_BYTES: Final = tuple(sign.encode() for sign in _SIGNS)
_NAMES: Final = re.compile(
    r"(?i)pass(?:word|wd|phrase)|(?:^|[^a-z])pwd|secret|authorization|(?:api|access|private)[_-]?key|"
    r"(?:^|[^a-z])token$|credential"
)

_own: re.Pattern[str] | None = None
_own_in_bytes: tuple[bytes, ...] = ()
_own_forms: tuple[str, ...] = ()
_longest = 0
_clean: set[str] = set()


def hide(secrets: Iterable[str], public: Iterable[str] = ()) -> None:
    """Mask these wherever they stand, from now on, in the forms that they take in URLs, in quoted text and in JSON.

    One that is shorter than ``SHORTEST``, a common word, or the same as something ``public`` (a user's, a host's or a
    database's name) is masked only where its place tells that it is a secret.
    """
    global _own, _own_forms, _own_in_bytes, _longest
    known = _COMMON | {word.lower() for word in public}
    forms = {form for text in secrets if _is_usable(text, known) for form in _forms(text) if _is_usable(form, known)}
    ordered = sorted(forms, key=len, reverse=True)
    _longest = len(ordered[0]) if ordered else 0
    _own = re.compile("|".join(map(_own_pattern, ordered))) if ordered else None
    _own_forms = tuple(ordered)
    _clean.clear()
    _own_in_bytes = tuple({data for form in ordered for data in (form.encode(), msgspec.json.encode(form)[1:-1])})


def _is_usable(text: str, known: Set[str]) -> bool:
    return len(text) >= SHORTEST and text.lower() not in known


def _forms(secret: str) -> set[str]:
    """Return a secret as it may be written; what is no text in UTF-8 has only the form that lines give it."""
    text = secret.encode("utf-8", "backslashreplace").decode()
    forms = set[str]()
    for each in (text, text.strip()):
        forms |= {each, repr(each)[1:-1], ascii(each)[1:-1], repr(each.encode())[2:-1]}
        forms |= {twice for once in _in_json(each) for twice in (once, *_in_json(once))}
        in_url = {quote(each), quote(each, safe=""), quote_plus(each)}
        forms |= in_url | {_ESCAPE.sub(lambda found: found[0].lower(), form) for form in in_url}
    return forms


def _in_json(text: str) -> tuple[str, str]:
    """Return the text as JSON writes it between quotes, with other than ASCII characters as they are, and escaped."""
    return msgspec.json.encode(text).decode()[1:-1], json.dumps(text)[1:-1]


def _own_pattern(form: str) -> str:
    escaped = re.escape(form)
    return escaped if len(form) >= _WORD else rf"(?<![A-Za-z0-9]){escaped}(?![A-Za-z0-9])"


def mask(text: str) -> str:
    """Return the text without credentials."""
    if _own is not None:
        text = _own.sub(MASK, text)
    low = text.lower()
    for signs, pattern, instead in _PATTERNS:
        if any(sign in low for sign in signs):
            text = pattern.sub(instead, text)
    return text


def bounded(text: str, limit: int, *, keep_end: bool = False) -> str:
    """Return the masked text, at most ``limit`` characters of it: its beginning, or its end.

    Masked first: a cut through the middle of a secret would leave a half that nothing recognises.
    """
    most = 4 * limit
    if len(text) > most:
        text = mask(text[-most:] if keep_end else text[:most])
        # What is left of a secret at our own cut is not in what is kept.
        text = text[_longest:] if keep_end else text[: max(len(text) - _longest, 0)]
        limit = min(limit, len(text))
        return "…" + text[len(text) - limit + 1 :] if keep_end else text[: max(limit - 1, 0)] + "…"
    text = mask(text)
    if len(text) <= limit:
        return text
    return "…" + text[1 - limit :] if keep_end else text[: limit - 1] + "…"


def is_clean(value: str) -> bool:
    """Return whether a short value surely holds no credential: most are ids, or words that come again and again."""
    if value in _clean:
        return True
    if len(value) > _MEMORABLE:
        return False
    if value.isalnum():
        # No pattern but that of AWS's keys is without a sign between its parts.
        suspicious = value.startswith(("AKIA", "ASIA")) or any(form in value for form in _own_forms)
    else:
        # "key:k7x2m9q4w1ab" has a sign of a credential and is none, and comes with every request of that key.
        suspicious = is_suspicious(value.encode("utf-8", "replace")) and mask(value) != value
    if suspicious:
        return False
    if len(_clean) >= _REMEMBERED:
        _clean.clear()
    _clean.add(value)
    return True


def is_suspicious(line: bytes) -> bool:
    """Return whether a line may hold a credential: a quick look, so that most lines need no search."""
    low = line.lower()
    for sign in _SIGNS_IN_BYTES:
        if sign in low:
            return True
    return any(form in line for form in _own_in_bytes)


@lru_cache(maxsize=4096)
def tells_secret(name: str) -> bool:
    """Return whether a field of this name holds a secret."""
    return _NAMES.search(name) is not None


def masked(value: object) -> object:
    """Return a plain value (see `rendering.py`) without credentials, also below and beside telling names."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict):
        return {mask(key): _masked_field(key, item) for key, item in value.items()}
    return [masked(item) for item in value] if isinstance(value, list) else value


def _masked_field(name: str, value: object) -> object:
    return MASK if tells_secret(name) and value is not None and not isinstance(value, bool) else masked(value)
