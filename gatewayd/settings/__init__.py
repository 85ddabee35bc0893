"""The configuration's YAML as typed values, and every fault of a file in one go.

    text ─ load ─► tree (scalars, lists, mappings, each with its place) ─ schema + readers ─► Settings

- `model`    what the daemon reads: one frozen section a class. Units and defaults are there and nowhere else.
- `values`   one scalar's text → value, or ValueError that says what is wrong.
- `schema`   the table: which key, read by what, into which field; and the checks across keys.
- `readers`  what the table is made of; they collect faults and never stop at the first.
- `tree`     the document without yaml; `load` is the only module that knows yaml.
- `restart`  which keys a reload cannot change.
- `file`     the one shell: a path → Settings.

Scalars are read from their text, not from what YAML 1.1 thinks they are: `off` stays a word, `0xff000000` and
`"0xff000000"` are the same, `010` and `1:30` are faults rather than 8 and 90.

Review notes: is the new key in the model, the schema and `config/gatewayd.example.yaml` (a test walks all
three)? Is its unit in the field's name? Does its fault say what is wrong *and* what is expected? Can a value
pass that a later package would have to check again? Could a fault repeat a secret? Can it change at reload,
and if not, is it in `restart`?
"""

from gatewayd.settings.file import read_settings
from gatewayd.settings.load import load_settings
from gatewayd.settings.model import (
    HttpSettings,
    InterfaceSettings,
    KernelSettings,
    ListenAddress,
    LogSettings,
    PolicySettings,
    ProtectedCategory,
    RadiusClient,
    RadiusSettings,
    RateLimit,
    RegisteredTreatment,
    RegistrySettings,
    RemovalLimit,
    Settings,
    ShrinkGuardSettings,
    SourceSettings,
    SubscriberSettings,
    UnregisteredTreatment,
    WatchSettings,
)
from gatewayd.settings.restart import settings_that_need_restart

__all__ = [
    "HttpSettings",
    "InterfaceSettings",
    "KernelSettings",
    "ListenAddress",
    "LogSettings",
    "PolicySettings",
    "ProtectedCategory",
    "RadiusClient",
    "RadiusSettings",
    "RateLimit",
    "RegisteredTreatment",
    "RegistrySettings",
    "RemovalLimit",
    "Settings",
    "ShrinkGuardSettings",
    "SourceSettings",
    "SubscriberSettings",
    "UnregisteredTreatment",
    "WatchSettings",
    "load_settings",
    "read_settings",
    "settings_that_need_restart",
]
