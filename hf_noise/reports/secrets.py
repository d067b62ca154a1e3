"""What must never be published: credentials, and folders of this machine. How they are known, and taken out of text.

`portable` is for text that we write (records, commands), where any absolute path is one of ours; `scrubbed` is for
text that somebody else wrote (a README, a config.json), in which `</td></tr>` and `/docs/api` are no folders.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

__all__ = ["REMOVED", "credential", "is_secret_name", "portable", "scrubbed"]

REMOVED = "<removed>"

# Names are cut into words: `hub_token`, `hubToken`, `--hub-token` and `HUB_TOKEN` are the same two.
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
# A secret wherever the word stands; argparse also takes the beginnings of a flag.
_ALWAYS = re.compile(
    r"passw(?:o(?:rds?)?)?|passwd|passphrase|passcode|pwd|secrets?|secre|credentials?|auth|oauth|oauth2|authorization|"
    r"bearer|(?:api|access|auth|secret|private|ssh)(?:key|token)s?"
)
# A secret as the last word, unless the word before says that it is a piece of text or the name of a column.
_AT_THE_END = {"token", "tok", "toke", "key"}
_OWNERS = re.compile(
    "api|access|auth|hub|hf|huggingface|wandb|github|gh|gitlab|aws|azure|gcp|openai|anthropic|comet|neptune|"
    "mlflow|slack|refresh|session|secret|private|ssh|login|upload|push|write|read|use|my|user|admin|id|deploy|"
    "encryption|signing|signature|service|account|client"
)
_TEXT_TOKENS = re.compile(
    "bos|eos|pad|padding|unk|unknown|sep|separator|cls|class|mask|start|begin|end|stop|eot|bot|boi|eoi|boa|eoa|"
    "text|image|video|audio|vision|speech|special|per|max|min|num|first|last|next|new|prefix|suffix|middle|fim|"
    "prompt|role|line|space|word|noisy|clean|input|output|target|label|decoder|encoder|fake|frame|patch|time|"
    "timestamp|tool|think|language|lang|no|blank"
)
_COLUMN_KEYS = re.compile(
    "label|text|image|audio|sample|column|row|sort|group|primary|foreign|join|index|input|target|public|metric|"
    "feature|rng|random|dict|cache|query|sequence"
)
# The forms of the access tokens of services, strict enough to leave words alone: most need a digit and a capital.
_SHAPES = (
    r"(?:hf|api_org)_[A-Za-z0-9]{30,}",
    r"(?<![\w-])sk-(?=[\w-]*\d)(?=[\w-]*[A-Z])[\w-]{20,}",
    r"(?<![A-Za-z0-9])gh[pousr]_[A-Za-z0-9]{30,}",
    r"(?<![A-Za-z0-9])(?:github_pat_|glpat-|wandb_v\d_|npm_|pypi-|nvapi-|gsk_|r8_|xox[abeoprs]-)(?=[\w-]*\d)[\w-]{20,}",
    r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])",
    r"(?<![\w-])AIza[\w-]{35}(?![\w-])",
    r"(?<![\w-])eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}",  # a JSON web token
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
)
# A vocabulary is a list of fragments of a corpus: only what has the whole length of a token counts there.
_WHOLE_CREDENTIAL = re.compile("|".join(_SHAPES), re.DOTALL)
_PART_OF_ONE = r"(?<![A-Za-z0-9])(?:hf|api_org)_[A-Za-z0-9]{16,}(?![A-Za-z0-9_])"  # `hf_noise_x` is none
_CREDENTIAL = re.compile("|".join([*_SHAPES, _PART_OF_ONE]), re.DOTALL)
_USER_INFO = re.compile(r"(?i)(?<![a-z0-9+.-])([a-z][a-z0-9+.-]*://)([^\s/?#'\"<>]*)@")
_BEARER = re.compile(r"(?i)\b(bearer|basic)(\s+)(?=[\w.~+/-]*[\d=])[\w.~+/-]{8,}=*")
# NAME=value, in a shell, a URL or a line of settings; "name": "value" in JSON; name: value on a line of YAML.
_EQUALS = re.compile(r"""(?<![\w.-])([A-Za-z_][\w.-]*)=(?!=)("[^"\n]*"|'[^'\n]*'|[^\s&;,"'<>()\[\]{}]+)""")
_QUOTED = re.compile(r"""(["'])([A-Za-z_][\w.-]*)\1(\s*:\s*)("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')""")
_YAML = re.compile(
    r"""(?m)^([ \t]*(?:- )?)([A-Za-z_][\w.-]*)(:[ \t]+)([^\s#&*!|>{\[<'"]\S*|"[^"\n]+"|'[^'\n]+')[ \t]*$"""
)

# An absolute path of two parts or more that starts a word: neither `tokens/s` nor `user/repo` nor `https://host/a`.
_BEFORE = r"(?<![\w.~\\/-])(?:file://(?=/))?"
_HOMES_AND_DRIVES = r"~(?:[A-Za-z_][\w-]*)?(?=/)|[A-Za-z]:\\|\\\\(?=[\w.-]+\\)"
_ABSOLUTE = re.compile(rf"""{_BEFORE}(?:{_HOMES_AND_DRIVES}|[A-Za-z]:/|/(?=[^\s/'",;]+/))[^\s'",;]+""")
# Where people keep their files; a path of another document (`/docs/api/x`) begins with none of these.
_LOCAL_ROOTS = (
    "home|root|Users|mnt|media|tmp|private|var|opt|srv|scratch|data|workspace|workspaces|work|nfs|gpfs|lustre|"
    "fsx|projects|project|content|kaggle|usr|etc|run|storage|volumes|Volumes|shared"
)
_LOCAL = re.compile(rf"""{_BEFORE}(?:{_HOMES_AND_DRIVES}|/(?:{_LOCAL_ROOTS})(?=/))[^\s'",;<>()\]]+""")


def is_secret_name(name: str, *, of_tokenizer: bool = False) -> bool:
    """Whether a flag, key or variable of this name holds a credential: `hub_token`, but not `eos_token` or `tokens`.

    `of_tokenizer`: in the files of a tokenizer, `<anything>_token` is a piece of text unless it names its owner.
    """
    words = [word.lower() for word in _WORDS.findall(_text("name", name))]
    if not words:
        return False
    if any(_ALWAYS.fullmatch(word) for word in words):
        return True
    last, before = words[-1], words[-2] if len(words) > 1 else ""
    if last in ("tokens", "keys") or (of_tokenizer and last in _AT_THE_END and before):
        return bool(_OWNERS.fullmatch(before))
    if "access" in words and "key" in words:  # aws_access_key_id
        return True
    return last in _AT_THE_END and not (_COLUMN_KEYS if last == "key" else _TEXT_TOKENS).fullmatch(before)


def credential(text: str) -> str | None:
    """The first access token or private key in a text that must not be changed, shortened for a message; None if
    there is none. Strict: a vocabulary may hold the beginning of one."""
    found = _WHOLE_CREDENTIAL.search(_text("text", text))
    return f"{found[0][:7]}..." if found else None


def portable(text: str) -> str:
    """The text without credentials and without folders of this machine, for what we write ourselves.

    Paths below the working directory become relative to it, other absolute paths keep their last part only.
    """
    return _until_it_stays(text, lambda text: _ABSOLUTE.sub(_relative, _without_secrets(text, lambda _: True)))


def scrubbed(text: str) -> str:
    """The text without credentials and without local folders, for what somebody else wrote: only paths below the
    usual roots of people's files count."""
    return _until_it_stays(text, lambda text: _LOCAL.sub(_relative, _without_secrets(text, _is_no_code)))


def _until_it_stays(text: str, change: Callable[[str], str]) -> str:
    """What is read again goes through the same filter, and must come out as it went in."""
    text = _text("text", text)
    while (changed := change(text)) != text:
        text = changed
    return text


def _text(name: str, value: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a text, got {value!r:.80} of type {type(value).__name__}")
    return value


def _is_no_code(match: re.Match) -> bool:
    """Whether `name=value` in somebody's README is an assignment with a secret, not `token=True` or `key=len`."""
    in_url = match.string[max(0, match.start() - 1) : match.start()] in ("?", "&")
    return in_url or match[1].isupper() or match[2][:1] in "\"'" or any(map(str.isdigit, match[2]))


def _without_secrets(text: str, is_value: Callable[[re.Match], bool]) -> str:
    text = _CREDENTIAL.sub(REMOVED, text)
    text = _USER_INFO.sub(_without_user, text)
    text = _BEARER.sub(rf"\1\2{REMOVED}", text)
    text = _EQUALS.sub(lambda m: _removed(m, 1, 2) if is_value(m) else m[0], text)
    text = _QUOTED.sub(lambda m: _removed(m, 2, 4), text)
    return _YAML.sub(lambda m: _removed(m, 2, 4), text)


def _removed(match: re.Match, name: int, value: int) -> str:
    """The match without the group `value` if the group `name` is the name of a secret; quotes stay."""
    if not is_secret_name(match[name]):
        return match[0]
    quote = match[value][0] if match[value][0] in "\"'" else ""
    start, end = (border - match.start() for border in match.span(value))
    return f"{match[0][:start]}{quote}{REMOVED}{quote}{match[0][end:]}"


def _without_user(match: re.Match) -> str:
    scheme, user = match[1], match[2]
    # `ssh://git@host` and `s3://` names carry no credential; a lone name before a web host is one (a token).
    is_credential = ":" in user or scheme.lower().startswith(("http", "ftp"))
    return scheme if is_credential else match[0]


def _relative(match: re.Match) -> str:
    whole = match[0].removeprefix("file://")
    path = os.path.expanduser(whole)
    if path.rstrip("/") == os.path.expanduser("~").rstrip("/"):
        return "~"  # its last part is somebody's name
    inside = os.path.relpath(path, os.getcwd()) if os.path.isabs(path) else ".."
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1] if inside.startswith("..") else inside
