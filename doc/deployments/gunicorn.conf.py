"""gunicorn -c /etc/glance/gunicorn.conf.py"""

bind = "127.0.0.1:60999"
wsgi_app = "glance.wsgi.api:application"
raw_env = ["OS_GLANCE_CONFIG_DIR=/etc/glance"]
# Threads: an upload keeps its worker busy for minutes, which other kinds take for a hang.
worker_class = "gthread"
workers = 2
threads = 8
