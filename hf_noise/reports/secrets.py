"""What must never be published: credentials, and folders of this machine. How they are known, and taken out of text.

A credential is known by its name (of a key, flag, variable or header) or by its form (of known services' tokens, in a
URL); a password in a sentence has neither, and stays.

`portable` is for text that we write (records, commands), where any absolute path is one of ours; `scrubbed` is for
text that somebody else wrote (a README, a config.json), in which `</td></tr>` and `/docs/api` are no folders.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = [
    "REMOVED", "credential", "is_secret_name", "is_secret_pair", "portable", "scrubbed", "without_secret_arguments",
]  # fmt: skip

REMOVED = "<removed>"

# Names are cut into words: `hub_token`, `hubToken`, `--hub-token` and `HUB_TOKEN` are the same two.
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
# A secret wherever the word stands; argparse also takes the beginnings of a flag.
_ALWAYS = re.compile(
    r"(?:user)?passw(?:o(?:rds?)?)?|userpass|passwd|passphrase|passcode|pwd|secrets?|secre|credentials?|creds?|"
    r"auth|oauth|oauth2|authorization|bearer|cookies?|jwt|dsn|netrc|webhooks?|"
    r"(?:api|access|auth|secret|private|ssh|hub|hf|wandb|openai|github)(?:key|token)s?"
)
# A secret alone, or after the name of its owner: `pass` and `smtp_pass`, not `forward_pass`.
_OWNED = {"pass", "pat", "pw", "sig"}
# A secret as the last word, unless the word before says that it is a piece of text or the name of a column.
_AT_THE_END = {"token", "tok", "toke", "key"}
_OWNERS = re.compile(
    "api|access|auth|hub|hf|huggingface|wandb|github|gh|gitlab|aws|azure|gcp|openai|anthropic|comet|neptune|"
    "mlflow|slack|refresh|session|secret|private|ssh|login|upload|push|write|read|use|my|user|admin|id|deploy|"
    "encryption|signing|signature|service|account|client|smtp|imap|mail|email|ftp|proxy|root|db|database|sql|mysql|"
    "postgres|redis|mongo|sas|gh"
)
_TEXT_TOKENS = re.compile(
    "bos|eos|pad|padding|unk|unknown|sep|separator|cls|class|mask|start|begin|end|stop|eot|bot|boi|eoi|boa|eoa|"
    "text|image|video|audio|vision|speech|special|per|max|min|num|first|last|next|new|prefix|suffix|middle|fim|"
    "prompt|role|line|space|word|noisy|clean|input|output|target|label|decoder|encoder|fake|frame|patch|time|"
    "timestamp|tool|think|language|lang|no|blank|split|reg|register"
)
_COLUMN_KEYS = re.compile(
    "label|text|image|audio|sample|column|row|sort|group|primary|foreign|join|index|input|target|public|metric|"
    "feature|rng|random|dict|cache|query|sequence|batch"
)
# The forms of the access tokens of services, strict enough to leave words alone: most need a digit and a capital.
_SHAPES = (
    r"(?:hf|api_org)_[A-Za-z0-9]{30,}",
    r"(?<![\w-])sk-(?=[\w-]*\d)(?=[\w-]*[A-Z])[\w-]{20,}",
    r"(?<![A-Za-z0-9])gh[pousr]_[A-Za-z0-9]{30,}",
    r"(?<![A-Za-z0-9])(?:github_pat_|glpat-|wandb_v\d_|npm_|pypi-|nvapi-|gsk_|r8_|xox[abeoprs]-)(?=[\w-]*\d)[\w-]{20,}",
    r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])(?::[A-Za-z0-9/+=]+(?=@))?",
    r"https://(?:hooks\.slack\.com/[a-z]+|discord(?:app)?\.com/api/webhooks)/[\w/-]+",  # who knows it may post there
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
_AUTHORIZATION = re.compile(r"(?i)\b(authorization[\"']?\s*[:=]\s*[\"']?[a-z]+[ \t]+)[^\s\"',<>`]+")
_NAME = r"([A-Za-z_][\w.-]*)"
_QUOTED_VALUE = r"""\"(?:[^"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'"""
_WORD = rf"((?:{_QUOTED_VALUE}|[^\s&;,\"'`<>()\[\]{{}}])+)"  # as a shell takes it
# NAME=value and NAME = value, in a shell, a URL or a line of settings; --name value.
_EQUALS = re.compile(rf"(?<![\w.-])-{{0,2}}{_NAME}([ \t]*)=(?!=)[ \t]*{_WORD}")
_FLAG = re.compile(rf"(?<![\w.-])--{_NAME}[ \t]+(?!-){_WORD}")
# "name": "value" in JSON and Python; {"name": "NAME", "value": "value"}; 'Name: value' as of a header.
_QUOTED = re.compile(rf"""(["']){_NAME}\1(\s*:\s*)({_QUOTED_VALUE})""")
_PAIR = re.compile(
    rf"""(["'])(?:name|key)\1\s*:\s*(["']){_NAME}\2\s*,\s*(["'])value\4\s*:\s*({_QUOTED_VALUE})"""
)
_HEADER = re.compile(rf"""(["']){_NAME}:[ \t]+((?:(?!\1)[^\n])+)(?=\1)""")
# name: value on a line of YAML, in braces, as a block of lines, as a list of words.
_LINE = rf"(?m)^([ \t]*)(?:[-*+] )?{_NAME}:"
_PLAIN = r"""(?!(?:null|true|false)\s)[^\s#&*!|>{\[<'"`]\S*"""
_YAML = re.compile(rf"""{_LINE}[ \t]+({_PLAIN}|"[^"\n]+"|'[^'\n]+')(?=[ \t]*$|[ \t]+#)""")
_FLOW = re.compile(rf"""[{{,]\s*{_NAME}:[ \t]+({_QUOTED_VALUE}|[^\s,{{}}\[\]<>"'`]+)(?=\s*[,}}])""")
_BLOCK = re.compile(rf"{_LINE}[ \t]+([|>][-+\d]*[ \t]*(?:#[^\n]*)?(?:\n(?:\1[ \t]+[^\n]*|[ \t]*(?=\n)))+)")
_LIST = re.compile(rf"{_LINE}[ \t]*((?:\n\1[ \t]*- [^\s<]\S*[ \t]*(?=\n|\Z))+)")
# Each with the number of the group that is the name, and of that which is the value.
_NAMED = ((_QUOTED, 2, 4), (_PAIR, 3, 5), (_HEADER, 2, 3), (_FLAG, 1, 2), (_BLOCK, 2, 3), (_LIST, 2, 3), (_YAML, 2, 3),
          (_FLOW, 1, 2))  # fmt: skip
_IS_FLAG = re.compile(r"--?([A-Za-z][\w.-]*)(=.*)?", re.DOTALL)

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
    if last in _OWNED:
        return not before or bool(_OWNERS.fullmatch(before))
    if words[-2:] == ["connection", "string"] or (last == "signature" and "amz" in words):
        return True
    if last in ("tokens", "keys") or (of_tokenizer and last in _AT_THE_END and before):
        return bool(_OWNERS.fullmatch(before))
    if "access" in words and "key" in words:  # aws_access_key_id
        return True
    return last in _AT_THE_END and not (_COLUMN_KEYS if last == "key" else _TEXT_TOKENS).fullmatch(before)


def is_secret_pair(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of settings such as {"name": "HF_TOKEN", "value": ...} holds a credential as its value."""
    names = [entry.get(key) for key in ("name", "key")]
    return "value" in entry and any(isinstance(name, str) and is_secret_name(name) for name in names)


def without_secret_arguments(arguments: Sequence[Any]) -> list[Any]:
    """A list of arguments, as sys.argv is, without the flags that take a credential and all their values."""
    kept, is_dropping = [], False
    for argument in arguments:
        flag = _IS_FLAG.fullmatch(argument) if isinstance(argument, str) else None
        is_dropping = is_secret_name(flag[1]) if flag else is_dropping  # up to the next flag: one may take several
        if not is_dropping:
            kept.append(argument)
        elif flag and flag[2]:
            is_dropping = False
    return kept


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
    """Whether `name=value` in somebody's README is an assignment with a secret, not `token=True` or `key = len`."""
    before, value = match.string[: match.start()].rpartition("\n")[2], match[3]
    is_setting = not match[2] and before in ("", "export ", "set ") and value not in ("True", "False", "None")
    is_told = before[-1:] in ("?", "&") or match[0][0] == "-" or match[1].isupper()
    return is_setting or is_told or value[0] in "\"'" or any(map(str.isdigit, value))


def _without_secrets(text: str, is_value: Callable[[re.Match], bool]) -> str:
    text = _USER_INFO.sub(_without_user, text)  # first: half of one may look like the token of a service
    text = _CREDENTIAL.sub(REMOVED, text)
    text = _BEARER.sub(rf"\1\2{REMOVED}", text)
    text = _AUTHORIZATION.sub(rf"\1{REMOVED}", text)
    text = _EQUALS.sub(lambda m: _removed(m, 1, 3) if is_value(m) else m[0], text)
    for pattern, name, value in _NAMED:
        text = pattern.sub(lambda m, name=name, value=value: _removed(m, name, value), text)
    return text


def _removed(match: re.Match, name: int, value: int) -> str:
    """The match without the group `value` if the group `name` is the name of a secret; quotes stay."""
    if not is_secret_name(match[name]):
        return match[0]
    found = match[value]
    quote = found[0] if found[0] in "\"'" and found[-1] == found[0] else ""
    space = " " if found[0] == "\n" else ""
    start, end = (border - match.start() for border in match.span(value))
    return f"{match[0][:start]}{space}{quote}{REMOVED}{quote}{match[0][end:]}"


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
