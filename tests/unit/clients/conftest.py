"""What tests of several clients need."""

import ssl
from pathlib import Path

import pytest
import trustme

from tests.servers.vsphere.wsdl import write_wsdl


@pytest.fixture(scope="session")
def wsdl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A description of vSphere's API."""
    return write_wsdl(tmp_path_factory.mktemp("wsdl"))


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, str]:
    """A server's TLS, and the file with its authority."""
    made = trustme.CA()
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    made.cert_pem.write_to_path(str(path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.issue_cert("127.0.0.1").configure_cert(context)
    return context, str(path)
