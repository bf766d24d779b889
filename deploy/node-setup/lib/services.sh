# shellcheck shell=sh
# systemd and sysctl. Under ROOT without COMMANDS there is no running system to talk to: what the
# board has to do itself is then said and not counted.

SYSTEMD=/etc/systemd/system

_later() { [ -n "$ROOT" ] && ! has "$1" && say "left for the board itself: $2"; }

# put_unit NAME CONTENT: a unit file, and systemd told of it.
put_unit() {
    put_file 644 "$SYSTEMD/$1" "$2"
    if [ "$WROTE" = yes ]; then reload_units; fi
}

drop_unit() {
    drop_file "$SYSTEMD/$1"
    if [ "$WROTE" = yes ]; then reload_units; fi
}

reload_units() {
    _later systemctl "systemctl daemon-reload" || change "reload systemd's units" call systemctl daemon-reload
}

# service_on UNIT [enable]: enabled, and started unless only `enable` is asked for.
service_on() {
    _later systemctl "systemctl enable --now $1" && return 0
    if ! call systemctl is-enabled --quiet "$1" 2>/dev/null; then
        change "enable $1" call systemctl enable "$1"
    fi
    if [ "${2:-}" != enable ] && ! call systemctl is-active --quiet "$1" 2>/dev/null; then
        change "start $1" call systemctl start "$1"
    fi
}

service_off() {
    _later systemctl "systemctl disable --now $1" && return 0
    if call systemctl is-active --quiet "$1" 2>/dev/null; then
        change "stop $1" call systemctl stop "$1"
    fi
    if call systemctl is-enabled --quiet "$1" 2>/dev/null; then
        change "disable $1" call systemctl disable "$1"
    fi
}

# restart_if_running UNIT: after its settings changed.
restart_if_running() {
    if has systemctl && call systemctl is-active --quiet "$1" 2>/dev/null; then
        change "restart $1" call systemctl restart "$1"
    fi
}

# put_sysctl FILE LINES (`key = value`): written, and in force now.
put_sysctl() {
    _lines=$2
    put_file 644 "$1" "$_lines"
    _later sysctl "sysctl -p $1" && return 0
    for _key_name in $(printf '%s\n' "$_lines" | sed -n 's/^\([a-z][^ =]*\) *=.*/\1/p'); do
        _value=$(printf '%s\n' "$_lines" | sed -n "s/^$_key_name *= *//p")
        _now=$(call sysctl -n "$_key_name" 2>/dev/null) || _now=
        if [ -z "$_now" ]; then
            say "note: this kernel has no $_key_name"
        elif [ "$_now" != "$_value" ]; then
            remember "sysctl.$_key_name" "$_now"
            change "set $_key_name from $_now to $_value" call sysctl -q -w "$_key_name=$_value"
        fi
    done
}

drop_sysctl() {
    _keys=$(sed -n 's/^\([a-z][^ =]*\) *=.*/\1/p' "$ROOT$1" 2>/dev/null) || _keys=
    drop_file "$1"
    for _key_name in $_keys; do
        _before=$(recall "sysctl.$_key_name")
        if [ -n "$_before" ] && has sysctl; then
            change "set $_key_name back to $_before" call sysctl -q -w "$_key_name=$_before"
        fi
        forget "sysctl.$_key_name"
    done
}

service_status() {
    if has systemctl; then
        say "$1 $(call systemctl is-enabled "$1" 2>/dev/null || true) $(call systemctl is-active "$1" 2>/dev/null || true)"
    fi
}

# After a stop that drained this machine: until then no pod comes to it.
let_pods_come_back() {
    _drained=$(recall pods.drained)
    if [ -n "$_drained" ] && has k3s; then
        change "let pods come to $_drained again" call k3s kubectl uncordon "$_drained"
        forget pods.drained
    fi
}
