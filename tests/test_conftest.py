"""The tests' own fence: no network, no cache of the user."""

import os
import socket
from pathlib import Path

import pytest


def test_outside_addresses_are_refused_and_loopback_is_not():
    with socket.socket() as outside, pytest.raises(OSError, match="do not use the network"):
        outside.connect(("192.0.2.1", 80))  # TEST-NET: reserved, nobody answers
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.connect(server.getsockname())


def test_caches_are_fresh_folders_and_libraries_are_offline():
    import datasets
    import huggingface_hub.constants as hub

    assert hub.HF_HUB_OFFLINE
    assert datasets.config.HF_DATASETS_OFFLINE
    for cache in (hub.HF_HUB_CACHE, str(datasets.config.HF_DATASETS_CACHE), os.environ["HF_NOISE_CACHE"]):
        assert "hf_noise-tests-" in cache
        assert not Path(cache).is_relative_to(Path.home() / ".cache")
