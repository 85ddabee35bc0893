"""Elements through pyroute2's own nftables client, as its documentation has it.

`sets("add")` makes the set and then raises TypeError (0.9.7), and takes no size; the sets are made by gatewayd's
encoder, which is not what is measured.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyroute2.netlink.nfnetlink.nftsocket import DATA_TYPE_NAME_TO_INFO, nft_set_elem_list_msg
from pyroute2.nftables.main import NFTables, NFTSet, NFTSetElem

from gatewayd.kernel.tables_codec import NEWSETELEM, NFPROTO_INET
from tests.bench.filling import TABLE

CHUNK = 1000
"""Of elements in a message; an attribute holds 64 KiB."""


class Pyroute2Set:
    """A set of addresses in our table that is there already."""

    def __init__(self, name: str) -> None:
        self._client = NFTables(nfgen_family=NFPROTO_INET)
        self._set = NFTSet(table=TABLE, name=name, key_type="ipv4_addr")

    def add(self, addresses: Sequence[str]) -> None:
        self._client.set_elems("add", set=self._set, elements=addresses)

    def remove(self, addresses: Sequence[str]) -> None:
        self._client.set_elems("del", set=self._set, elements=addresses)

    def close(self) -> None:
        self._client.close()


def encode(name: str, addresses: Sequence[str]) -> bytes:
    """The message that `add` sends: the same classes by the same way."""
    modifier = DATA_TYPE_NAME_TO_INFO["ipv4_addr"][2]()
    modifier.header = None
    message = nft_set_elem_list_msg()
    message["header"]["type"] = NEWSETELEM
    message["attrs"] = [
        ["NFTA_SET_ELEM_LIST_TABLE", TABLE],
        ["NFTA_SET_ELEM_LIST_SET", name],
        ["NFTA_SET_ELEM_LIST_ELEMENTS", [NFTSetElem(value=each).as_netlink(modifier) for each in addresses]],
    ]
    message.encode()
    return bytes(message.data)
