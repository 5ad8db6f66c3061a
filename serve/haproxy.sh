#!/bin/sh
# HAProxy as Ray Serve starts it, with its own figures on this machine alone: Ray's configuration has them on every
# interface, whatever the service's own host is.
for argument; do
    if [ "$before" = -f ]; then
        sed -i -E "s/^( *bind )\*?:(${RAY_SERVE_HAPROXY_METRICS_PORT:-9101}|${RAY_SERVE_HAPROXY_STATS_PORT:-8404})$/\1127.0.0.1:\2/" "$argument"
    fi
    before=$argument
done
exec "$CELLNET_HAPROXY" "$@"
