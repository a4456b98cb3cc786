"""Words that say nothing about what a text is about; for bags of words only.

Short lists on purpose: a language model reads the whole text, and a stop word that a shop's
titles do distinguish ("off", "no", "with", "without", "under") would be lost to search.
"""

from __future__ import annotations

from typing import Final

_ENGLISH: Final = """
a about after all also am an and any are as at be because been before being between both but by
can could did do does doing during each few for from further had has have having he her here hers
him his how i if in into is it its itself just let me more most my nor of on once only or other
our ours own same she should so some such than that the their theirs them then there these they
this those through to too until very was we were what when where which while who whom why will
would you your yours
"""

_CHINESE: Final = """
的 了 和 是 在 也 就 都 而 及 与 或 着 被 把 让 给 从 向 对 于 由 到 以 之 其 这 那 此 该 各 每
我 你 您 他 她 它 我们 你们 您们 他们 她们 它们 咱们 自己 这个 那个 这些 那些 这里 那里 这样 那样
什么 怎么 怎样 如何 为什么 哪 哪个 哪些 谁 吗 呢 吧 啊 呀 哦 嗯 啦 嘛 地 得 过 又 还 再 很 更 最
太 非常 十分 但 但是 不过 然而 因为 所以 因此 如果 虽然 而且 并且 或者 以及 等 等等 一个 一种 一些
有 没有 可以 能 会 要 想 请 已 已经 正在 将 只 只是 就是 还是 不是 都是 也是
"""

STOP_WORDS: Final = frozenset(_ENGLISH.split()) | frozenset(_CHINESE.split())
