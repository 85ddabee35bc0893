"""The profiles of NAS by themselves."""

from __future__ import annotations

import dataclasses
from typing import get_type_hints

from gatewayd.model.accounting import NasProfile
from gatewayd.settings.subscribers import NasSettings, ProfileSettings


def test_a_profile_says_of_a_nas_what_the_model_says_when_nothing_is_configured() -> None:
    assert ProfileSettings().nas_profile == NasProfile()
    assert NasSettings("bng-1").profile == ProfileSettings()


def test_a_profile_passes_on_every_word_of_it() -> None:
    words: dict[str, str] = {
        "interim": "snapshot",
        "identity": "3gpp-imsi",
        "country_code": "92",
        "nat_side": "outside",
        "session_ids": "digest",
    }
    assert words.keys() == {field.name for field in dataclasses.fields(NasProfile)}
    assert dataclasses.asdict(ProfileSettings(**words).nas_profile) == words  # type: ignore[arg-type]


def test_a_profile_and_the_model_have_the_same_words() -> None:
    """Those of the model are written out where they stand, so here they are written again."""
    of_model, here = get_type_hints(NasProfile), get_type_hints(ProfileSettings)
    assert {name: here[name] for name in of_model} == of_model
