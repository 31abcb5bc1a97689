"""Comes to a protected server as the Python SDK does it: asks, is refused, finds the authorization server, gets a token,
calls the tool `echo`.

    authorized.py URL --grant code|credentials [--id ID --secret SECRET --issuer URL]

`code` registers itself and follows redirects as a browser would. Prints `{"text", "token", "exchanges"}`: the result, the
access token, and every exchange as `[STATUS, "METHOD URL"]`.
"""

import argparse
import json
from urllib.parse import parse_qs, urljoin, urlsplit

import anyio
import httpx2
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata

CALLBACK = "http://127.0.0.1:1/callback"  # nobody is there: redirects are followed no further
HOPS_MAX = 10
TIMEOUT_S = 30


class Storage:
    """Keeps what it is given, for one run."""

    def __init__(self):
        self.tokens = self.client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client):
        self.client = client


class Browser:
    """What a browser does with a URL, up to the redirect to the client."""

    async def open(self, url):
        async with httpx2.AsyncClient(timeout=TIMEOUT_S) as http:
            for _ in range(HOPS_MAX):
                answer = await http.get(url)
                if "location" not in answer.headers:
                    raise RuntimeError(f"{answer.status_code} from {url}: {answer.text}")
                url = urljoin(url, answer.headers["location"])
                if url.startswith(CALLBACK):
                    self.query = {name: value for name, [value] in parse_qs(urlsplit(url).query).items()}
                    return
        raise RuntimeError("too many redirects")

    async def result(self):
        return AuthorizationCodeResult(**{name: self.query.get(name) for name in ("code", "state", "iss")})


def provider(given, storage):
    if given.grant == "credentials":
        return ClientCredentialsOAuthProvider(given.url, storage, given.id, given.secret, issuer=given.issuer)
    browser = Browser()
    metadata = OAuthClientMetadata(
        client_name="authorized",
        redirect_uris=[CALLBACK],
        grant_types=["authorization_code", "refresh_token"],
        response_types=["code"],
        token_endpoint_auth_method="none",
    )
    return OAuthClientProvider(given.url, metadata, storage, browser.open, browser.result)


async def main(given):
    storage, exchanges = Storage(), []

    class Noting(httpx2.AsyncHTTPTransport):
        """Below the SDK's authorization, which makes requests of its own."""

        async def handle_async_request(self, request):
            answer = await super().handle_async_request(request)
            exchanges.append([answer.status_code, f"{request.method} {request.url}"])
            return answer

    async with httpx2.AsyncClient(auth=provider(given, storage), transport=Noting(), timeout=TIMEOUT_S) as http:
        async with Client(streamable_http_client(given.url, http_client=http), mode="legacy") as client:
            result = await client.call_tool("echo", {"message": "hello"})
    text = result.content[0].text
    print(json.dumps({"text": text, "token": storage.tokens.access_token, "exchanges": exchanges}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--grant", choices=["code", "credentials"], required=True)
    for name in ("--id", "--secret", "--issuer"):
        parser.add_argument(name)
    anyio.run(main, parser.parse_args())
