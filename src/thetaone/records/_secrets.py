"""Passwords in URLs, kept out of everything that is shown or stored."""

import re

_IN_ADDRESS = re.compile(r"(://[^/\s:@'\"]*:)([^/\s'\"]*)(?=@)")
_IN_QUERY = re.compile(
    r"([?&;](?:[\w-]*(?:password|passwd|passphrase|pwd|secret|token)[\w-]*)=)([^&;\s'\"#]*)",
    re.IGNORECASE,
)


def hide_passwords(text: str) -> str:
    """The text with the password of every URL in it replaced by ``***``.

    Examples:
        >>> hide_passwords("postgresql://me:hunter2@host/db?sslpassword=abc&x=1")
        'postgresql://me:***@host/db?sslpassword=***&x=1'
    """
    return _IN_QUERY.sub(r"\1***", _IN_ADDRESS.sub(r"\1***", text))


def passwords_in(text: str) -> list[str]:
    """The passwords that ``hide_passwords`` would hide, to look for in a driver's words."""
    pairs = [*_IN_ADDRESS.findall(text), *_IN_QUERY.findall(text)]
    return [password for _, password in pairs if password]
