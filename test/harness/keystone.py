# Serves Keystone on a port of the loopback address that it prints. What it needs to know
# is in the file that OS_KEYSTONE_CONFIG_FILES names.
import sys
import threading

sys.argv = sys.argv[:1]

from socketserver import ThreadingMixIn
from wsgiref import simple_server

from keystone.server.wsgi import initialize_public_application


class Server(ThreadingMixIn, simple_server.WSGIServer):
    daemon_threads = True
    request_queue_size = 256


application = initialize_public_application()
turn = threading.Lock()


def one_at_a_time(environ, start_response):
    """Threads that share SQLite would find it locked."""
    with turn:
        return list(application(environ, start_response))


port = int(sys.stdin.readline())
server = simple_server.make_server("127.0.0.1", port, one_at_a_time, server_class=Server)
print(server.server_port, flush=True)
server.serve_forever()
