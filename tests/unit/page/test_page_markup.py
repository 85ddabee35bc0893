from __future__ import annotations

from gatewayd.page.markup import Markup, element, joined


def test_text_and_attributes_are_escaped_and_markup_is_not_escaped_twice() -> None:
    hostile = "<script>alert('1')</script>&\""
    made = element("p", hostile, element("b", "x & y"), title=hostile)
    assert made == (
        '<p title="&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt;&amp;&quot;">'
        "&lt;script&gt;alert('1')&lt;/script&gt;&amp;\"<b>x &amp; y</b></p>"
    )
    assert isinstance(made, Markup)


def test_an_attribute_may_be_absent_bare_or_a_number() -> None:
    made = element(
        "input", name="q", hidden=True, value=None, disabled=False, maxlength=200, class_="a", aria_label="b"
    )
    assert made == '<input name="q" hidden maxlength="200" class="a" aria-label="b">'


def test_content_may_be_nested_and_empty() -> None:
    assert joined(["a<", [element("i", "b")], (each for each in "c&")]) == "a&lt;<i>b</i>c&amp;"
    assert element("td", "") == "<td></td>"
