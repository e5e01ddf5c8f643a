"""Images: from a released model to a pinned, proven image in a registry.

The face of this room:

    package(model, ...) -> Packaged               build, test, sign, publish; nothing where nothing changed
    verify(reference, public_key) -> Verified     is this the image that was packaged
    golden.equal(outputs, golden)                 does a server that runs it give the golden answer

An image is its manifest's digest. The same model, base, lock and server give the same digest on every machine and by
every builder: `normal` says how. Images lie in an OCI layout under `.edgeml/image/layout`, and in the registry of the
settings where one is named.
"""

from edgeml.image.packaging import Packaged, package
from edgeml.image.verification import Verified, verify

__all__ = ["Packaged", "Verified", "package", "verify"]
