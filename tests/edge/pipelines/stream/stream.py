"""Reads a blob in pieces and stops in the middle until its shared access signature, where it has one, has expired."""

import os
import sys
import time
from datetime import datetime
from urllib.parse import parse_qs

import blob_client

blob_client.CHUNK = 1000
expires = parse_qs(os.environ.get("EDGEML_STORAGE_SAS_TOKEN", "")).get("se")
blob = blob_client.container("private").get_blob_client("edge/rows.csv")
try:
    with blob_client.explained("edge/rows.csv"):
        found = blob.get_blob_properties()
    with open(sys.argv[1], "wb") as target:
        for piece in blob_client.chunks(blob, size=found.size, etag=found.etag, connections=1):
            target.write(piece)
            left = datetime.fromisoformat(expires.pop()).timestamp() - time.time() if expires else 0
            if 0 < left < 100:
                time.sleep(left + 1.5)
except blob_client.StorageError as error:
    print(f"stream: {error}", file=sys.stderr)
    sys.exit(1)
