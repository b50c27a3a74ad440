"""Links into the AWS console, for people."""

from __future__ import annotations

_HOSTS = (("cn-", "console.amazonaws.cn"), ("us-gov-", "console.amazonaws-us-gov.com"))


def console_url(region: str, path: str) -> str:
    """Return the URL of a page.

    :param path: with its service and fragment, such as ``sagemaker/home#/jobs/name``; the region is put before the
        fragment.
    """
    host = next((host for prefix, host in _HOSTS if region.startswith(prefix)), "console.aws.amazon.com")
    page, _, fragment = path.partition("#")
    separator = "&" if "?" in page else "?"
    return f"https://{region}.{host}/{page}{separator}region={region}" + (f"#{fragment}" if fragment else "")


def escaped(text: str) -> str:
    """Return text as CloudWatch's pages want it in their fragments: encoded twice, with ``$`` for ``%``."""
    from urllib.parse import quote

    return quote(quote(text, safe=""), safe="").replace("%", "$")
