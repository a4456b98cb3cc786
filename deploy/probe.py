"""Ask a URL and exit 0 when it answers 200: a container's health check, without curl."""

import sys
import urllib.error
import urllib.request

try:
    urllib.request.urlopen(sys.argv[1], timeout=4)
except (urllib.error.URLError, TimeoutError) as error:
    sys.exit(f"{sys.argv[1]}: {error}")
