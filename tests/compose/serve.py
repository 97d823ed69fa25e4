"""A store with an S3 API for tests and for trying out: moto, by HTTPS. Everything is in memory and gone with the process.

The folder SEED is what the bucket BUCKET begins with. The certificate is made anew by each process for the names in NAMES; the
authority that clients are to believe is put into the file CA.
"""

import datetime
import io
import ipaddress
import os
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import boto3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

# A peer that the network has lost would otherwise keep its thread for ever.
SILENCE_SECONDS = 15

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class OneAtATime:
    """Requests are answered one after the other, each once it has arrived as a whole.

    moto looks whether an object exists and then writes it, which is no guarantee when two do so at once. Whoever stops in the
    middle of a request keeps nobody waiting.
    """

    def __init__(self, application: Application) -> None:
        self.application = application
        self.lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        # Whoever says nothing of who they are may do what all others may: reading soups with curl takes no signature.
        environ.setdefault("HTTP_AUTHORIZATION", "AWS4-HMAC-SHA256 Credential=any/20260101/us-east-1/s3/aws4_request")
        if "chunked" not in environ.get("HTTP_TRANSFER_ENCODING", ""):
            length = int(environ.get("CONTENT_LENGTH") or 0)
            body = environ["wsgi.input"].read(length)
            if len(body) < length:
                raise ConnectionError("the request has no end")
            environ["wsgi.input"] = io.BytesIO(body)
        with self.lock:
            return list(self.application(environ, start_response))


class Quiet(WSGIRequestHandler):
    """Logs no request."""

    timeout = SILENCE_SECONDS

    def log_request(self, *_: object) -> None:
        """Nothing."""


class Server(ThreadedWSGIServer):
    """Shakes hands in a connection's own thread: werkzeug does it where it accepts, and one silent client then stops all others."""

    daemon_threads = True

    def __init__(self, port: int, application: Application, context: ssl.SSLContext) -> None:
        super().__init__("0.0.0.0", port, application, Quiet)
        self.ssl_context = context

    def finish_request(self, request: Any, client_address: Any) -> None:
        """One connection."""
        request.settimeout(SILENCE_SECONDS)
        with self.ssl_context.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away, or that does not believe this store, says so itself."""


def key_and_certificate(
    subject: str, signer: tuple[ec.EllipticCurvePrivateKey, x509.Certificate] | None, names: list[str]
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """A key and its certificate: an authority's where nobody signs it, else a server's of these names."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(signer[1].subject if signer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=365))
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([general_name(n) for n in names]), critical=False)
    return key, builder.sign(signer[0] if signer else key, hashes.SHA256())


def general_name(name: str) -> x509.GeneralName:
    """An address or a host."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def tls(names: list[str], ca_file: Path) -> ssl.SSLContext:
    """What a server of these names needs, and the authority's certificate in a file, for clients."""
    ca = key_and_certificate("store of tests", None, [])
    key, certificate = key_and_certificate("store", ca, names)
    pem = serialization.Encoding.PEM
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
            + certificate.public_bytes(pem)
        )
        file.flush()
        context.load_cert_chain(file.name)
    new = ca_file.with_suffix(".new")
    new.write_bytes(ca[1].public_bytes(pem))
    new.replace(ca_file)
    return context


def seed(bucket: str, folder: Path, endpoint: str, ca_file: Path) -> None:
    """Fills the bucket with what is below the folder."""
    client = boto3.client(
        "s3", endpoint_url=endpoint, verify=str(ca_file), region_name="us-east-1",
        aws_access_key_id="any", aws_secret_access_key="any",
    )
    client.create_bucket(Bucket=bucket)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            client.upload_file(str(path), bucket, path.relative_to(folder).as_posix())


def main() -> None:
    """Serves, and seeds: who waits for the file SEEDED waits until all is there."""
    port = int(os.environ.get("PORT", "9000"))
    ca_file = Path(os.environ.get("CA", "/var/lib/store/ca.crt"))
    context = tls(os.environ.get("NAMES", "store localhost 127.0.0.1").split(), ca_file)
    application = OneAtATime(DomainDispatcherApplication(create_backend_app))
    server = Server(port, application, context)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    seed(os.environ.get("BUCKET", "soup"), Path(os.environ.get("SEED", "/seed")), f"https://127.0.0.1:{port}", ca_file)
    Path(os.environ.get("SEEDED", "/tmp/seeded")).touch()
    print("ready", flush=True)
    thread.join()


main()
