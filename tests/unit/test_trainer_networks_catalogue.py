"""What the trainer knows about backbones without loading tensorflow."""

from __future__ import annotations

import subprocess
import sys

import pytest

import trainer.networks
from dicomnode.imaging.profiles import PROFILES
from trainer import config, networks
from trainer.errors import UsageError
from trainer.networks import tiny
from trainer.networks.catalogue import APPLICATIONS
from trainer.networks.heads import HEADS


def test_the_settings_and_the_catalogue_name_the_same_networks():
    assert set(config.NETWORKS) == {"tiny", *APPLICATIONS}


@pytest.mark.parametrize("name", ["tiny", *APPLICATIONS])
def test_every_network_has_a_known_profile_and_its_row_in_the_charter(name):
    assert networks.profile_of(name) in PROFILES
    side = PROFILES[networks.profile_of(name)].height
    row = next(
        line for line in (trainer.networks.__doc__ or "").splitlines() if f"`{name}`" in line
    )
    assert f"{side} x {side}" in row
    head = tiny.HEAD if name == "tiny" else APPLICATIONS[name].head
    assert head in HEADS
    assert f"`{head}`" in row


def test_an_unknown_network_is_answered_with_the_known_ones():
    with pytest.raises(UsageError, match=r"one of tiny, vgg16, .*, got 'resnet'"):
        networks.profile_of("resnet")


def test_a_profile_is_known_without_loading_tensorflow():
    """The command line validates its options before anything slow happens."""
    code = (
        "import sys; from trainer import networks; networks.profile_of('vgg16');"
        "sys.exit('keras' in sys.modules or 'tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
