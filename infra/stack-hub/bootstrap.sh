#!/bin/sh
# Makes a fresh Ubuntu (or Debian) VM the edge VM: Docker, three users without a login, a firewall that asks who is
# speaking, SSH by key alone, security updates, no core dumps. CustomScript runs it as root; run twice, it changes
# nothing. `edgeml infra` puts the settings in front; they are lists of words.
#
#   ADMIN        who logs in and runs the jobs
#   SSH_SOURCES  address ranges that may open SSH (IPv4)
#   EGRESS       host:port that ADMIN and `uploader` may open
#   DATA_DISK    the empty data disk
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
umask 022
: "${ADMIN:?}" "${SSH_SOURCES=}" "${EGRESS=}" "${DATA_DISK=/dev/disk/azure/scsi1/lun0}"
HOME_OF_DATA=/srv/edgeml
PACKAGES="ca-certificates bubblewrap docker.io e2fsprogs nftables openssh-server python3 unattended-upgrades util-linux"

say() { printf 'edgeml: %s\n' "$*" >&2; }
alive() { [ -d /run/systemd/system ]; } # false while an image is built
there() { getent passwd "$1" >/dev/null; }

# put FILE MODE: standard input becomes the file, unless it is the same already; `changed` names what was written. What
# no service was told of yet stands in a file, so that a run after one that was cut short tells it.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
changed=
UNTOLD=/var/lib/edgeml/untold
put() {
    cat >"$work/new"
    if [ -f "$1" ] && cmp -s "$work/new" "$1" && [ "$(stat -c %a "$1")" = "$2" ]; then return 0; fi
    mkdir -p "$(dirname "$1")" "$(dirname "$UNTOLD")"
    printf '%s\n' "$1" >>"$UNTOLD"
    install -m "$2" "$work/new" "$1.new"
    mv -f "$1.new" "$1"
    changed="$changed $1"
}
untold() { grep -qsxF "$1" "$UNTOLD"; }

packages() {
    missing=
    for package in $PACKAGES; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    say "installing$missing"
    apt-get -q update >&2
    # shellcheck disable=SC2086  # a list of words
    apt-get -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 install $missing >&2
}

users() {
    for name in trainer gate uploader; do
        there "$name" || useradd --system --user-group --no-create-home --home-dir /nonexistent \
            --shell /usr/sbin/nologin "$name"
    done
    there "$ADMIN" || { say "there is no user $ADMIN; the template makes it"; exit 1; }
    # Who may speak to docker is root. The engine starts containers, so its user is trusted; trainer never is.
    id -nG "$ADMIN" | tr ' ' '\n' | grep -qx docker || usermod -aG docker "$ADMIN"
}

# The data disk is formatted once, when nothing at all is on it (no file system, no partition table), and mounted by its
# label. A disk with anything else on it is somebody's.
disk() {
    if ! [ -b "$DATA_DISK" ]; then
        say "there is no disk $DATA_DISK; everything goes on the system's own"
        return 0
    fi
    [ -n "$(wipefs --no-act "$DATA_DISK")" ] || mkfs.ext4 -q -L edgeml "$DATA_DISK"
    [ "$(blkid -p -o value -s LABEL "$DATA_DISK")" = edgeml ] ||
        { say "the disk $DATA_DISK holds something that is not ours; attach an empty one"; exit 1; }
    mkdir -p "$HOME_OF_DATA"
    line="LABEL=edgeml $HOME_OF_DATA ext4 defaults,nofail,nosuid,nodev 0 2"
    grep -qxF "$line" /etc/fstab 2>/dev/null || printf '%s\n' "$line" >>/etc/fstab
    ! alive || mountpoint -q "$HOME_OF_DATA" || mount "$HOME_OF_DATA"
}

# folder PATH OWNER GROUP MODE
folder() {
    [ -d "$1" ] && [ "$(stat -c '%U %G %a' "$1")" = "$2 $3 $4" ] || install -d -o "$2" -g "$3" -m "$4" "$1"
}

folders() {
    folder "$HOME_OF_DATA" root root 755
    folder "$HOME_OF_DATA/jobs" "$ADMIN" "$ADMIN" 700
    folder "$HOME_OF_DATA/quarantine" trainer gate 2770 # trainer leaves, gate takes away
    folder "$HOME_OF_DATA/approved" gate uploader 2750  # gate leaves, uploader may only read
}

ssh_server() {
    put /etc/ssh/sshd_config.d/10-edgeml.conf 644 <<END
# Written by bootstrap.sh. The first value counts, so this file stands before the image's own.
PermitRootLogin no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitEmptyPasswords no
AuthenticationMethods publickey
AllowUsers $ADMIN
DisableForwarding yes
PermitUserRC no
PermitUserEnvironment no
MaxAuthTries 3
LoginGraceTime 30
END
    [ -s /etc/ssh/ssh_host_ed25519_key.pub ] || ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
    mkdir -p /run/sshd
    sshd -T | grep -qx 'disableforwarding yes' ||
        { say "sshd does not read sshd_config.d (before Ubuntu 20.04); take a newer image"; exit 1; }
}

# numbers NAME...: the user ids of those names that exist, as a set of nftables
numbers() {
    set=
    for name; do there "$name" && set="$set${set:+, }$(id -u "$name")"; done
    printf '{ %s }' "$set"
}

firewall() {
    put /etc/edgeml/egress 644 <<END
# host:port, one a line: what $ADMIN and uploader may open. Written by bootstrap.sh.
$(printf '%s\n' $EGRESS)
END
    if [ -n "$SSH_SOURCES" ]; then
        ssh_rule="ip saddr { $(printf '%s' "$SSH_SOURCES" | tr -s ' ' ',') } tcp dport 22 accept"
    else
        ssh_rule="# nobody: no range was stated"
    fi
    put /etc/nftables.conf 644 <<END
#!/usr/sbin/nft -f
# Written by bootstrap.sh. Our table alone is made anew: the rules of docker stay.
table inet edgeml
delete table inet edgeml
table inet edgeml {
    set allowed {
        type ipv4_addr . inet_service
        flags timeout
    }

    chain input {
        type filter hook input priority filter; policy drop;
        iif lo accept
        ct state vmap { established : accept, related : accept, invalid : drop }
        icmp type { echo-request, destination-unreachable, time-exceeded } accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept
        udp sport 67 udp dport 68 accept
        $ssh_rule
        # A site's port, led to its container by the rule of \`edgeml deploy\`; the network's own rules say who comes.
        ct status dnat accept
    }

    # Containers are reached on the ports they publish and begin no connection of their own.
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        ct status dnat oifname "docker0" accept
    }

    chain output {
        type filter hook output priority filter; policy drop;
        # Neither trains nor judges with a network, not even this machine's own: a resolver listens there.
        meta skuid $(numbers trainer gate) counter reject with icmpx admin-prohibited
        # The platform's own service answers to whom it should not: root alone (its agent) may ask it.
        ip daddr { 168.63.129.16, 169.254.169.254 } meta skuid != 0 counter reject with icmpx admin-prohibited
        oif lo accept
        ct state established,related accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit } accept
        meta skuid 0 ip daddr 168.63.129.16 accept
        oifname "docker0" meta skuid 0 accept
        meta skuid $(numbers root systemd-network) udp sport 68 udp dport 67 accept
        meta skuid $(numbers root _apt systemd-resolve "$ADMIN" uploader) meta l4proto { tcp, udp } th dport 53 accept
        meta skuid $(numbers root systemd-timesync _chrony) udp dport 123 accept
        meta skuid $(numbers root _apt) tcp dport { 80, 443 } accept
        meta skuid $(numbers "$ADMIN" uploader) ip daddr . tcp dport @allowed accept
        counter reject with icmpx admin-prohibited
    }
}
END
    # An address of a name may change, so the set is filled anew every minute and forgets after an hour.
    put /usr/local/sbin/edgeml-egress 755 <<'END'
#!/bin/sh
# Puts the addresses of the hosts in /etc/edgeml/egress into the firewall's set. Written by bootstrap.sh.
set -u
failed=0
while IFS=: read -r host port; do
    case "$host" in '' | '#'*) continue ;; esac
    found=$(getent ahostsv4 "$host" | cut -d ' ' -f 1 | sort -u)
    [ -n "$found" ] || { echo "edgeml: $host has no address now" >&2; failed=1; }
    for address in $found; do
        # Delete after add: alone, an add leaves an element's time as it was.
        printf 'add element inet edgeml allowed { %s . %s timeout 1h }\n' "$address" "$port"
        printf 'delete element inet edgeml allowed { %s . %s }\n' "$address" "$port"
        printf 'add element inet edgeml allowed { %s . %s timeout 1h }\n' "$address" "$port"
    done
done </etc/edgeml/egress | nft -f -
exit $failed
END
    put /etc/systemd/system/edgeml-egress.service 644 <<'END'
[Unit]
Description=addresses that the edge VM may open
After=nftables.service network-online.target
Wants=network-online.target

[Service]
Type=oneshot
ExecStart=/usr/local/sbin/edgeml-egress
END
    put /etc/systemd/system/edgeml-egress.timer 644 <<'END'
[Unit]
Description=addresses that the edge VM may open, every minute

[Timer]
OnBootSec=5
OnUnitActiveSec=60
AccuracySec=1

[Install]
WantedBy=timers.target
END
    nft -c -f /etc/nftables.conf
}

containers() {
    put /etc/docker/daemon.json 644 <<END
{
  "data-root": "$HOME_OF_DATA/docker",
  "default-ulimits": { "core": { "Name": "core", "Hard": 0, "Soft": 0 } },
  "icc": false,
  "live-restore": true,
  "log-driver": "local",
  "no-new-privileges": true
}
END
    put /etc/systemd/system/docker.service.d/edgeml.conf 644 <<END
[Unit]
After=nftables.service
RequiresMountsFor=$HOME_OF_DATA
END
}

# At start-up docker brings a site's containers back; the rule that leads the traffic to one has to be set again, and so
# has it whenever nftables.service starts, because its stop empties all tables.
sites() {
    home=$(getent passwd "$ADMIN" | cut -d : -f 6)
    put /etc/systemd/system/edgeml-sites.service 644 <<END
[Unit]
Description=what edgeml deployed to this machine
ConditionPathExists=$home/edgeml/sites/restore.pyz
After=docker.service nftables.service
Wants=docker.service
PartOf=nftables.service
StartLimitIntervalSec=600
StartLimitBurst=5

[Service]
Type=oneshot
RemainAfterExit=yes
User=$ADMIN
ExecStart=/usr/bin/python3 -I $home/edgeml/sites/restore.pyz
AmbientCapabilities=CAP_NET_ADMIN
CapabilityBoundingSet=CAP_NET_ADMIN
NoNewPrivileges=yes
ProtectSystem=full
TimeoutStartSec=600
Restart=on-failure
RestartSec=20

[Install]
WantedBy=multi-user.target nftables.service
END
}

hygiene() {
    put /etc/apt/apt.conf.d/52edgeml 644 <<'END'
APT::Periodic::Update-Package-Lists "1";
APT::Periodic::Unattended-Upgrade "1";
Unattended-Upgrade::Automatic-Reboot "false";
END
    # A core dump of a trainer is a copy of the rows.
    put /etc/security/limits.d/90-edgeml.conf 644 <<'END'
* hard core 0
root hard core 0
END
    put /etc/sysctl.d/90-edgeml.conf 644 <<'END'
fs.suid_dumpable = 0
kernel.core_pattern = |/bin/false
kernel.dmesg_restrict = 1
END
    put /etc/systemd/system.conf.d/90-edgeml.conf 644 <<'END'
[Manager]
DefaultLimitCORE=0
END
}

services() {
    # Ubuntu's crash reporter would set the core pattern anew at each start.
    ! [ -e /lib/systemd/system/apport.service ] || systemctl --quiet mask apport.service
    for unit in nftables.service edgeml-egress.timer docker.service edgeml-sites.service unattended-upgrades.service; do
        [ "$(systemctl is-enabled "$unit" 2>/dev/null)" = enabled ] || systemctl --quiet enable "$unit"
    done
    alive || return 0
    systemctl daemon-reload
    ! untold /etc/sysctl.d/90-edgeml.conf || sysctl -q --system
    # Closed first, then opened for the names, and only then what may speak.
    if untold /etc/nftables.conf || ! systemctl -q is-active nftables; then systemctl restart nftables; fi
    systemctl start edgeml-egress.timer
    systemctl start edgeml-egress.service || say "not every host of EGRESS has an address yet; it is asked every minute"
    if untold /etc/docker/daemon.json; then systemctl restart docker; else systemctl start docker; fi
    systemctl start edgeml-sites.service || say "not every site could be restored: journalctl -u edgeml-sites"
    ! untold /etc/ssh/sshd_config.d/10-edgeml.conf || systemctl reload ssh
}

packages
users
disk
folders
ssh_server
firewall
containers
sites
hygiene
services
rm -f "$UNTOLD"
say "changed:${changed:- nothing}"
# Read by `edgeml infra` through Resource Manager, so that nobody has to trust the first connection.
printf 'edgeml-host-key: %s\n' "$(cut -d ' ' -f 1,2 /etc/ssh/ssh_host_ed25519_key.pub)"
