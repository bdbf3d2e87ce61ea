"""The frames of the table in Chinese; the English meaning stands in the table itself."""

from __future__ import annotations

from towline.lab.texts import Text
from towline.protocol.table import FRAMES, Kind

_CHINESE: dict[Kind, str] = {
    Kind.HELLO: "开场：版本、限额、随机数",
    Kind.PROVE: "客户端证明自己是谁",
    Kind.WELCOME: "节点认得客户端，并说出把它当作谁",
    Kind.OPEN: "在某个位置打开一个流",
    Kind.ACCEPT: "服务接下这个流",
    Kind.DATA: "一条消息，或其中一部分",
    Kind.CREDIT: "归还信用：已消费多少，就可再发多少",
    Kind.END: "这一端不再发 DATA；可带尾部信息",
    Kind.RESET: "以一个错误结束流的两个方向",
    Kind.PING: "你还在吗？",
    Kind.PONG: "在，这是你的 8 个字节",
    Kind.GOAWAY: "这里不再接受新的流",
}


def meaning(kind: Kind) -> Text:
    """What a kind of frame is for."""
    return {"en": FRAMES[int(kind)].meaning, "zh": _CHINESE[kind]}
