"""The conformance suite on volumes of every kind."""

import pytest

from store_lib.testing import Profile, Settings, checks_for
from tests.functional.cinder.conftest import Deployment
from tests.functional.conformance import configurations, passed, run_kit

#: Kinds of volumes, and the options of a store on them.  All can be attached by several processes
#: at once, as a service with several workers needs it.
KINDS = {
    "multi": [],
    "filemulti": ["cinder_do_extend_attached = true"],
    "rbdmulti": [],
}

#: What depends on the kind of a volume; the rest is Cinder's interface, the same for all, and goes
#: through the suite with the first kind, and in `make deep` with each.
_BY_KIND = "size or zeros or ranges or reader or incomplete or killed or sweeps or under_a"


@pytest.mark.parametrize(("kind", "profile"), configurations(list(KINDS)[:1], list(KINDS)[1:]))
def test_cinder_conforms(kind: str, profile: str, deployment: Deployment) -> None:
    """A store on volumes of this kind passes every check."""
    if kind not in deployment.cinder.types:
        pytest.skip("volumes in Ceph need Ceph: see the skipped tests of rbd")
    chosen = ("-k", _BY_KIND) if profile == "short" else ()
    config = deployment.config(it=deployment.lines(kind, *KINDS[kind]))
    result = run_kit(
        deployment.directory,
        *("--store-config", config, "--store", "it", "--store-no-skip"),
        *("--store-big-size", "128", "-W", "ignore:Using fork:DeprecationWarning"),
        *chosen,
        profile=profile,
    )
    wanted = len(checks_for(Profile(Settings((config,), "it"))))
    assert 15 < passed(result) < wanted if chosen else passed(result) == wanted
