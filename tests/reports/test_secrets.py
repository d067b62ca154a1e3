"""What counts as a credential or a folder of this machine, and that nothing else does."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise.reports.provenance import command_line
from hf_noise.reports.secrets import credential, is_secret_name, portable, scrubbed

HF = "hf_" + "aB3" * 11
SECRETS = """
token key auth api-key --auth --hub_token HF_TOKEN wandb_key --password db.password hubToken apiKey
AWS_SECRET_ACCESS_KEY aws_access_key_id use_auth_token api_keys hf_tokens client_secret basic-auth apikey ssh_key
--hub_tok my_token credentials OPENAI_API_KEY private_key Authorization pwd env.HF_TOKEN"""
HARMLESS = """
eos_token max_tokens tokens tokenizer keyboard key_dim monkey num_key_value_heads pad_token_id author
keyword max_new_tokens loss_per_token label_key sort_key keys image_token turkey
tokenizer_name secretary passes seconds
hockey hf_noise authored"""
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
    text = "</td></tr> [x](/docs/a/b) load(token=True, key=len, auth=auth) <p>"
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


def test_a_command_without_its_credentials():
    argv = ["a.py", "--hub_token", "X", "Y", "--n", "-3", "--token", "-123", "--api-key=k", "HF_TOKEN=abc", "--set",
            "trainer.hub_token=abc", "--url", "https://u:p@h/x?token=1a", "--keyboard", "de", "--eos_token", "</s>",
            "--auth", "basic", "--max_tokens=5", '{"wandb_key": "x"}']  # fmt: skip
    assert command_line(argv) == (
        "python a.py --n -3 'HF_TOKEN=<removed>' --set 'trainer.hub_token=<removed>' "
        "--url 'https://h/x?token=<removed>' "
        "--keyboard de --eos_token '</s>' --max_tokens=5 '{\"wandb_key\": \"<removed>\"}'"
    )
