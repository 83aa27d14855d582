"""Addresses and keys of OpenAI-compatible APIs, and what may be shown of them."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import SecretStr

from crimson_core.errors import InputError, JudgeError, needed

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

_OPENAI_HOST = "api.openai.com"


@dataclass(frozen=True)
class Server:
    """An API; made by `openai_server` or `azure_server`.

    Attributes:
        name: `openai` or `azure`.
        host: The part of its URL that may be shown.
        key: The key, wrapped so that no repr or traceback with local variables shows it.
        key_variable: The environment variable of the key.
        where_wrong: What to check if the server or the model is not found.
        connect: Makes an asynchronous client; takes `api_key` and the client's other options.
        connect_blocking: The same for a synchronous client.
        version: Further fields of the signature.
    """

    name: str
    host: str
    key: SecretStr = field(repr=False)
    key_variable: str
    where_wrong: str
    connect: Callable[..., "AsyncOpenAI"] = field(repr=False)  # contains the URL, which may contain a password
    connect_blocking: Callable[..., "OpenAI"] = field(repr=False)
    version: dict[str, str] = field(default_factory=dict)


def openai_server(base_url: str | None = None, api_key: str | None = None) -> Server:
    """OpenAI or an OpenAI-compatible server.

    Args:
        base_url: The API's URL, usually ending in /v1; defaults to OPENAI_BASE_URL, then to OpenAI's own.
        api_key: Defaults to OPENAI_API_KEY. Servers other than OpenAI's may need none.

    Raises:
        InputError: `base_url` is not a URL.
        JudgeError: The `openai` package or the key is missing.
    """
    openai = openai_package()
    url = base_url or os.environ.get("OPENAI_BASE_URL") or f"https://{_OPENAI_HOST}/v1"
    host = _host(url, "base_url (or OPENAI_BASE_URL)")
    return Server(
        name="openai",
        host=host,
        version=_elsewhere(url, ("", "/v1")),
        key=_key(api_key, "OPENAI_API_KEY", needed=host == _OPENAI_HOST),
        key_variable="OPENAI_API_KEY",
        where_wrong="the model's name and base_url (or OPENAI_BASE_URL), which usually ends in /v1",
        connect=partial(openai.AsyncOpenAI, base_url=url),
        connect_blocking=partial(openai.OpenAI, base_url=url),
    )


def azure_server(endpoint: str | None = None, api_key: str | None = None, api_version: str | None = None) -> Server:
    """Azure OpenAI.

    Args:
        endpoint: For example https://my-resource.openai.azure.com; defaults to AZURE_OPENAI_ENDPOINT.
        api_key: Defaults to AZURE_OPENAI_API_KEY.
        api_version: For example 2024-10-21; defaults to OPENAI_API_VERSION.

    Raises:
        InputError: `endpoint` is not a URL.
        JudgeError: The `openai` package, the key, the endpoint or the version is missing.
    """
    openai = openai_package()
    version = api_version or os.environ.get("OPENAI_API_VERSION")
    url = endpoint or os.environ.get("AZURE_OPENAI_ENDPOINT")
    if not url:
        raise JudgeError(
            "There is no endpoint. Set the environment variable AZURE_OPENAI_ENDPOINT, or pass endpoint in Python."
        )
    if not version:
        raise JudgeError(
            "There is no API version. Set the environment variable OPENAI_API_VERSION (2024-10-21, say), "
            "or pass api_version in Python."
        )
    return Server(
        name="azure",
        host=_host(url, "endpoint (or AZURE_OPENAI_ENDPOINT)"),
        key=_key(api_key, "AZURE_OPENAI_API_KEY", needed=True),
        key_variable="AZURE_OPENAI_API_KEY",
        where_wrong=(
            "the deployment's name, AZURE_OPENAI_ENDPOINT (or endpoint) and OPENAI_API_VERSION (or api_version)"
        ),
        connect=partial(openai.AsyncAzureOpenAI, azure_endpoint=url, api_version=version),
        connect_blocking=partial(openai.AzureOpenAI, azure_endpoint=url, api_version=version),
        version={"api_version": version} | _elsewhere(url, ("",)),
    )


SERVERS: dict[str, Callable[..., Server]] = {"openai": openai_server, "azure": azure_server}


openai_package = partial(needed, "openai", "openai", "An API model")


def _host(url: str, name: str) -> str:
    """The host of a URL, the only part that is ever shown: the rest may contain a password or a token."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # an invalid port raises here
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        raise InputError(f"{name} is not a URL. Give one such as https://host/v1.")
    return host


def _key(given: str | None, variable: str, needed: bool) -> SecretStr:
    key = (given or os.environ.get(variable) or "").strip()
    if not key:
        if not needed:
            return SecretStr("none")  # the client requires one
        raise JudgeError(f"There is no API key. Set the environment variable {variable}, or pass api_key in Python.")
    if not re.fullmatch(r"[!-~]+", key):  # the HTTP client's error would show it
        raise JudgeError(f"The API key contains a blank or a non-ASCII character. Check {variable} or api_key.")
    return SecretStr(key)


def _elsewhere(url: str, usual: Sequence[str]) -> dict[str, str]:
    """A field of the signature that distinguishes servers of one host: a digest of port and path, if these are unusual.

    User, password and query stay out of it: they identify the user, and may be secret.
    """
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    if parts.port is None and path in usual:
        return {}
    return {"url": sha256(f"{parts.port}{path}".encode()).hexdigest()[:8]}
