"""`dor vis check` of stores on an https server, which has no listing."""

import json
import shutil

import pytest
from support.web import Certificate, serve


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Certificate:
    return Certificate.make(tmp_path_factory.mktemp("certificate"))


def test_published_stores_are_checked_over_https(dor, atlas, certificate, tmp_path):
    web = tmp_path / "web"
    dor("publish", atlas.folder, web)
    environment = {"SSL_CERT_FILE": str(certificate.authority)}
    with serve(web, certificate) as url:
        for store in [*atlas.v2_stores(), atlas.store2_v3]:
            location = f"{url}/{store.name}"
            report = json.loads(dor("vis", "check", location, "--json", **environment))
            assert report["sound"], report
            assert report["cases"]["done"] == ["112-04"]
        # A changed chunk is found over https too.
        chunk = web / atlas.store2.name / "0" / "PH" / "112.1.1.3.0.0.0"
        chunk.write_bytes(chunk.read_bytes() + b"more")
        done = dor.run("vis", "check", f"{url}/{atlas.store2.name}", **environment)
        assert done.returncode == 65, done
        assert "112.1.1.3.0.0.0" in done.stdout
        # Without case manifests, the rest of the store is checked.
        shutil.rmtree(web / atlas.store1.name / ".cases")
        printed = dor("vis", "check", f"{url}/{atlas.store1.name}", **environment)
        assert "no case manifests" in printed, printed
