"""The configuration file of the Ceph cluster that tests run."""

from pathlib import Path

#: Manager modules that nobody needs here; each of them would cost time at the start.
_MODULES = (
    "alerts,influx,insights,iostat,localpool,mirroring,nfs,osd_perf_query,osd_support,prometheus,"
    "restful,selftest,snap_schedule,stats,telegraf,test_orchestrator,zabbix"
)

#: Bytes that the OSD's sparse file may grow to.
_OSD_SIZE = 24 * 1024**3


def ceph_conf(directory: Path, *, fsid: str, monitor: str, s3_port: int, s3_tls_port: int) -> str:
    """Return the text of ``ceph.conf`` for a cluster in ``directory``."""
    d = directory
    return f"""\
[global]
fsid = {fsid}
mon host = {monitor}
public network = 127.0.0.0/8
cluster network = 127.0.0.0/8
ms bind ipv6 = false
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {d}/$name.keyring
run dir = {d}/run
admin socket = {d}/run/$name.asok
log file = {d}/log/$name.log
log to stderr = false
crash dir = {d}/crash
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
# An OSD that was frozen for longer than its leases last, which this sets, never serves some of its
# placement groups again when it has no peers.
osd heartbeat grace = 3600

[client]
log file = /dev/null
admin socket =
objecter tick interval = 1

[mon]
mon data = {d}/mon
keyring = {d}/mon/keyring
mon allow pool size one = true
mon allow pool delete = true
mon warn on pool no redundancy = false
mon cluster log file = {d}/log/cluster.log
mon data avail warn = 2
mon data avail crit = 1
mon max pg per osd = 1000
auth allow insecure global id reclaim = false
# Decisions at once instead of every second.
paxos propose interval = 0.01
paxos min wait = 0.005

[mgr]
mgr data = {d}/mgr
mgr initial modules =
mgr disabled modules = {_MODULES}
# Statistics of pools after a second instead of five.
mgr stats period = 1
mgr tick period = 1

[osd]
osd data = {d}/osd
osd uuid = {fsid}
osd objectstore = bluestore
# The device is a sparse file; it grows with what is written.
bluestore block size = {_OSD_SIZE}
bluestore block create = true
bluestore block wal size = 0
bluestore block db size = 0
bluestore fsck on mount = false
# Room that was given back is used again before new room, or the file grows to its full size.
bluestore avl alloc bf free pct = 100
# The default of 250 costs seconds at the start.
bdev aio poll ms = 5
osd memory target = 1073741824
osd class update on start = false
osd op num shards = 2
osd recovery sleep = 0
# Seconds until the watch of a client that died ends; 30 by default, with a sign of life each 5.
osd client watch timeout = 5

[client.rgw.a]
log file = {d}/log/rgw.log
admin socket = {d}/run/rgw.asok
rgw frontends = beast endpoint=127.0.0.1:{s3_port} ssl_endpoint=127.0.0.1:{s3_tls_port} \
ssl_certificate={d}/rgw/cert.pem ssl_private_key={d}/rgw/key.pem
rgw dns name = s3.localhost
rgw data = {d}/rgw
rgw enable usage log = false
rgw run sync thread = false
rgw thread pool size = 64
# The room of what was deleted comes back after seconds instead of hours.
rgw gc obj min wait = 1
rgw gc processor period = 5
rgw gc processor max time = 5
"""
