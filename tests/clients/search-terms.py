"""python-requests: asks for a persisted query with each term from standard input.

Each term ends with a NUL. The only argument is the URL up to the value.
"""
import sys
from urllib.parse import quote

import requests

session = requests.Session()
session.trust_env = False
for term in sys.stdin.buffer.read().decode().split("\0")[:-1]:
    response = session.get(sys.argv[1] + quote(term, safe="!~*'()"), timeout=30)
    response.raise_for_status()
    print(response.text)
