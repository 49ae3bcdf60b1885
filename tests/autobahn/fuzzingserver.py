"""Serve the Autobahn test suite as its own command does, but on loopback, and without its website.

Runs on the suite's Python 2.7; the argument is the specification, as a file of JSON.
"""

import functools
import json
import sys

from autobahntestsuite import fuzzing
from twisted.internet import reactor

fuzzing.listenWS = functools.partial(fuzzing.listenWS, interface="127.0.0.1")
with open(sys.argv[1]) as specification:
    fuzzing.startServer(json.load(specification), webport=None)
reactor.run()
