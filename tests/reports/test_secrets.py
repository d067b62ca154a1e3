"""What counts as a credential or a folder of this machine, and that nothing else does."""

import os
import re
import shlex
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise.reports.provenance import command_line
from hf_noise.reports.secrets import REMOVED, credential, is_secret_name, portable, scrubbed

HF = "hf_" + "aB3" * 11
SECRETS = """
token key auth api-key --auth --hub_token HF_TOKEN wandb_key --password db.password hubToken apiKey
AWS_SECRET_ACCESS_KEY aws_access_key_id use_auth_token api_keys hf_tokens client_secret basic-auth apikey ssh_key
pass smtp_pass --pass DB_PASS cred creds pat gh_pat cookie webhook_url jwt connection_string dsn sig sas_sig
X-Amz-Signature hubtoken --hub_tok my_token credentials OPENAI_API_KEY private_key Authorization pwd env.HF_TOKEN"""
HARMLESS = """
eos_token max_tokens tokens tokenizer keyboard key_dim monkey num_key_value_heads pad_token_id author
keyword max_new_tokens loss_per_token label_key sort_key keys image_token turkey
tokenizer_name secretary passes seconds
hockey hf_noise authored pass_through forward_pass bypass compass pattern file_pattern sigma signal design key_length
signature_columns num_tokens batch_key split_token token_type per_token cookiecutter padding"""
#: Text with a secret in it: the secret, and what is left.
HIDDEN = {
    "https://user:pw@host/x?token=abc&b=2": "https://host/x?token=<removed>&b=2",
    "https://ghp_x@github.com/a": "https://github.com/a",
    "s3://AK:SK@bucket/x": "s3://bucket/x",
    "HF_TOKEN=abc python x.py": "HF_TOKEN=<removed> python x.py",
    "Authorization: Bearer abcdef123456": "Authorization: Bearer <removed>",
    '{"api_key": "abc", "eos_token": "x"}': '{"api_key": "<removed>", "eos_token": "x"}',
    "hub_token: abc\nname: x": "hub_token: <removed>\nname: x",
    f"x {HF}.": "x <removed>.",
    "s3://AKIAIOSFODNN7EXAMPLE:wJalrXUtn/FEMI@bucket/x": "s3://<removed>@bucket/x",
    'password = "hunter2"': 'password = "<removed>"',
    "login(token = 'hunter2x')": "login(token = '<removed>')",
    "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG": "aws_secret_access_key = <removed>",
    "python x.py --hub_token=mysecret --lr 1": "python x.py --hub_token=<removed> --lr 1",
    "python x.py --hub_token mysecret --lr 1": "python x.py --hub_token <removed> --lr 1",
    "export password=a'b c'\"d\" x": "export password=<removed> x",
    "password: hunter2 # mine": "password: <removed> # mine",
    "- password: hunter2": "- password: <removed>",
    "extra: {lr: 1, password: hunter2}": "extra: {lr: 1, password: <removed>}",
    "a:\n  password: |\n    hunter2\n\n    more\n  b: 1": "a:\n  password: <removed>\n  b: 1",
    "passwords:\n  - hunter2\n  - fish\nb: 1": "passwords: <removed>\nb: 1",
    "curl -H 'X-API-Key: abc 123' x": "curl -H 'X-API-Key: <removed>' x",
    "Authorization: Basic dXNlcjpwYXNz": "Authorization: Basic <removed>",
    "https://x.blob.core.windows.net/a?sv=1&sig=abc%3D": "https://x.blob.core.windows.net/a?sv=1&sig=<removed>",
    "https://hooks.slack.com/services/T0/B0/XX ok": "<removed> ok",
    '{"name": "HF_TOKEN", "value": "fish"}': '{"name": "HF_TOKEN", "value": "<removed>"}',
    "`HF_TOKEN=abc`": "`HF_TOKEN=<removed>`",
    "AKIAIOSFODNN7EXAMPLE": "<removed>",
    "sk-proj-abcDEF1234567890abcdefXYZ": "<removed>",
    "ghp_" + "a1B2" * 9: "<removed>",
    "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----\n": "<removed>\n",
    "file:///home/me/x.txt": "x.txt",
    "train:/home/me/x.parquet": "train:x.parquet",
    r"C:\Users\me\a.txt": "a.txt",
    "~bob/data/x": "x",
}
UNTOUCHED = [
    "12 tokens/s", "user/gpt2-r0.5", "https://host.org/a/b", "hf_noise/docs-noisy", "../shared/x.parquet", "a / b",
    "git@github.com:a/b", "ssh://git@host/a", "hf://datasets/u/x@main/f", "sk-learn-based-text-classification-2",
    "hf_internal_testing_of_long_names", "a=b tokens=5 eos_token=x", "~10/20 steps", "the token: a word of the text",
]  # fmt: skip


@pytest.mark.parametrize("name", SECRETS.split())
def test_names_of_secrets(name):
    assert is_secret_name(name)


@pytest.mark.parametrize("name", HARMLESS.split())
def test_names_that_only_sound_like_it(name):
    assert not is_secret_name(name)


def test_in_a_tokenizer_s_files_a_token_is_text_unless_it_has_an_owner():
    assert is_secret_name("hub_token", of_tokenizer=True) and is_secret_name("token", of_tokenizer=True)
    for name in ("boa_token", "any_other_token"):
        assert not is_secret_name(name, of_tokenizer=True)


@pytest.mark.parametrize("text", HIDDEN)
def test_secrets_and_folders_go(text):
    assert portable(text) == scrubbed(text) == HIDDEN[text]


@pytest.mark.parametrize("text", UNTOUCHED)
def test_other_text_stays(text):
    assert portable(text) == scrubbed(text) == text


def test_somebody_s_readme_keeps_its_html_links_and_code():
    text = (
        "</td></tr> [x](/docs/a/b) load(token=True, key=len, auth=auth) <p>\ntoken = os.environ['HF_TOKEN']\n"
        "key = jax.random.split(key)\n    auth=auth,\nif token == other:\n`--token` is `--key`\nThe password: "
        "see above\n- key: the name of a column\nPasswords:\n\n- of many words\nuse 'a: b'\n--lr 1 --tokens 5\n"
        "pad_token: x1\n{num_tokens: 12, pad_token: x}\ntokenizer = 'gpt2'\npattern = 'a1'\n"
    )
    assert scrubbed(text) == text
    assert scrubbed("see /home/me/x/y. load(token='abc'); export HF_PASSWORD=fish") == (
        "see y. load(token='<removed>'); export HF_PASSWORD=<removed>"
    )


def test_a_home_gives_no_name_away(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert portable("--output=/home/someone") == "--output=~" and portable("/home/someone/") == "~"
    inside = os.path.join(os.getcwd(), "runs", "a")
    assert portable(f"in {inside}") == f"in {os.path.join('runs', 'a')}"


def test_only_a_whole_token_counts_in_a_vocabulary():
    assert credential(f'{{"{HF}": 7}}') == "hf_aB3a..." and credential("hf_internaltestingofnames eos sk-") is None


PARTS = [HF, "/home/me/", "~/a", "://", "u:p@", "token=", "key: ", '"', "'", " ", "\n", "=", "<removed>", "Bearer "]
pieces = st.sampled_from([*HIDDEN, *UNTOUCHED, *PARTS])


@settings(max_examples=150, deadline=None)
@given(st.lists(pieces | st.text(max_size=6), max_size=8).map("".join))
def test_what_was_filtered_stays_as_it_is(text):
    for clean in (portable, scrubbed):
        once = clean(text)
        assert clean(once) == once and HF not in once


@pytest.mark.parametrize("text", ["a-" * 50_000, "a" * 100_000, "password: |\n" + " \n" * 20_000, "key " * 20_000,
                                  "a" + " " * 50_000 + "b", "token='" * 9_000, "{a:" * 20_000, "x://" + "a:" * 9_999])
def test_long_text_takes_no_long_time(text):
    start = time.perf_counter()
    scrubbed(text)
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    "value",
    ["PASSWORD=a b c", "password=p4ss&w0rd", "password=p4ss;w0rd", "token=abc,def", "token=a'b'c", 'token="abc"def',
     "password = abc", "hub_token:abc", "Authorization: Basic abc", "++trainer.hub_token=abc\nd", "x/token=abc"],
)  # fmt: skip
def test_what_an_argument_gives_a_secret_goes_whole(value):
    name = re.match(r"[+\w./]+\s*[=:]\s*", value)[0]
    for argv, kept in ((["x.py", "--env", value], ["--env", f"{name}{REMOVED}"]),
                       (["x.py", f"--env={value}"], [f"--env={name}{REMOVED}"])):  # fmt: skip
        assert command_line(argv) == shlex.join(["python", "x.py", *kept])
    for flag in ("--pass", "--hub_token"):
        assert command_line(["x.py", flag, value, "b", "--lr", "1"]) == "python x.py --lr 1"
    assert command_line(["x.py", "{hub_token: abc, lr: 1}"]) == "python x.py '{hub_token: <removed>, lr: 1}'"


def test_a_command_without_its_credentials():
    argv = ["a.py", "--hub_token", "X", "Y", "--n", "-3", "--token", "-123", "--api-key=k", "HF_TOKEN=abc", "--set",
            "trainer.hub_token=abc", "--url", "https://u:p@h/x?token=1a", "--keyboard", "de", "--eos_token", "</s>",
            "--auth", "basic", "--max_tokens=5", '{"wandb_key": "x"}']  # fmt: skip
    assert command_line(argv) == (
        "python a.py --n -3 'HF_TOKEN=<removed>' --set 'trainer.hub_token=<removed>' "
        "--url 'https://h/x?token=<removed>' "
        "--keyboard de --eos_token '</s>' --max_tokens=5 '{\"wandb_key\": \"<removed>\"}'"
    )
