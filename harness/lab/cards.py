"""The ConnectX cards of a lab host, read from its sysfs and ibv_devinfo, as findings."""

from __future__ import annotations

from harness.lab.finding import CARD, MISSING, NOTE, OK, UNKNOWN, Finding, clean

MIN_MTU = 4200
"""Of the network device, for an RDMA MTU of 4096."""

# Lines KEY=VALUE, a card after each `card=`; a port after each `port=`.
COMMAND = r"""get() { cat "$1" 2>/dev/null | tr '\n' ' '; }
for d in /sys/class/infiniband/*; do
  [ -e "$d" ] || continue
  driver=$(readlink "$d/device/driver"); [ "${driver##*/}" = mlx5_core ] || continue
  pci=$(readlink -f "$d/device")
  echo "card=${d##*/}"; echo "pci=${pci##*/}"; echo "firmware=$(get "$d/fw_ver")"; echo "board=$(get "$d/board_id")"
  echo "type=$(get "$d/hca_type")"; echo "numa=$(get "$d/device/numa_node")"
  echo "link=$(get "$d/device/current_link_speed") x$(get "$d/device/current_link_width")"
  echo "best=$(get "$d/device/max_link_speed") x$(get "$d/device/max_link_width")"
  echo "vfs=$(get "$d/device/sriov_numvfs")"
  [ -e "$d/device/physfn" ] && echo function=virtual
  group=$(readlink "$d/device/iommu_group"); echo "group=${group##*/}"
  echo "members=$(ls "$d/device/iommu_group/devices" 2>/dev/null | tr '\n' ' ')"
  for n in "$d"/device/net/*; do [ -e "$n" ] && echo "net=${n##*/} mtu $(get "$n/mtu")"; done
  for p in "$d"/ports/*; do
    echo "port=${p##*/}"; echo "state=$(get "$p/state")"
    echo "layer=$(get "$p/link_layer")"; echo "rate=$(get "$p/rate")"
    for g in "$p"/gid_attrs/types/*; do
      case "$(cat "$g" 2>/dev/null)" in *v2*) echo "gid=${g##*/} $(get "$p/gids/${g##*/}")" ;; esac
    done
  done
  ibv_devinfo -v -d "${d##*/}" 2>&1 | sed -n '/odp_caps/,/^[^\t]/p' | grep -o 'ODP_SUPPORT[A-Z_]*' | sort -u |
    sed 's/^/odp=/'
done"""

Card = dict[str, list[str]]


def cards_of(output: str) -> list[Card]:
    """Split the command's output into cards, each {key: values}."""
    cards: list[Card] = []
    for line in output.splitlines():
        key, _, value = line.partition("=")
        if key == "card":
            cards.append({})
        if cards:
            cards[-1].setdefault(key, []).append(clean(value.strip()))
    return cards


def card_findings(output: str) -> list[Finding]:
    """Return the findings of all cards; a first one that says if any of them could be used."""
    cards = cards_of(output)
    if not cards:
        hint = "a ConnectX-4 or newer with mlx5_core and mlx5_ib loaded"
        return [Finding("cards", "ConnectX", MISSING, "none is bound to mlx5_core", hint, needed=(CARD,))]
    details = [each for card in cards for each in _of_card(card)]
    usable = [card["card"][0] for card in cards if not any(each.in_the_way for each in _of_card(card))]
    if usable:
        found = Finding("cards", "ConnectX", OK, f"could be used: {', '.join(usable)}", needed=(CARD,))
        # Another card's faults are not in the way of this one.
        return [found, *(_no_need(each) for each in details)]
    found = Finding("cards", "ConnectX", MISSING, f"{len(cards)} there, none can be used", needed=(CARD,))
    return [found, *details]


def _of_card(card: Card) -> list[Finding]:
    name = card["card"][0]
    first = {key: values[0] for key, values in card.items()}
    identity = "{type}, firmware {firmware}, board {board}, {pci}, node {numa}".format_map(_Missing(first))
    findings = [Finding("cards", name, NOTE, clean(identity))]
    link = first.get("link", "")
    slower = link != first.get("best", link)
    text = f"{link}{', the card can do ' + first['best'] if slower else ''}"
    findings.append(Finding("cards", f"{name} link", NOTE, text))
    members = first.get("members", "").split()
    text = f"group {first.get('group') or 'none'} of {len(members)} devices, {first.get('vfs') or 0} virtual functions"
    findings.append(Finding("cards", f"{name} IOMMU", NOTE, text))
    findings += [_port(name, card), _odp(name, card)]
    return findings


def _port(name: str, card: Card) -> Finding:
    states, item = card.get("state", []), f"{name} port"
    nets = ", ".join(card.get("net", ["no network device"]))
    active = [state for state in states if "ACTIVE" in state]
    layers = card.get("layer", ["?"])
    text = f"{'; '.join(states) or 'no port'}; {layers[0]} {card.get('rate', ['?'])[0]}; {nets}"
    if not active:
        hint = "a cable and a switch (or opensm for InfiniBand); ip link set DEVICE up"
        return Finding("cards", item, MISSING, clean(text), hint, needed=(CARD,))
    if layers[0] == "Ethernet" and not any("ffff:" in gid for gid in card.get("gid", [])):
        hint = "ip address add ADDRESS/24 dev DEVICE: a RoCE v2 GID comes with an IPv4 address"
        return Finding("cards", item, MISSING, clean(f"{text}; no IPv4 GID"), hint, needed=(CARD,))
    small = [net for net in card.get("net", []) if int(net.rpartition(" ")[2] or 0) < MIN_MTU]
    if small and layers[0] == "Ethernet":
        text += f"; below {MIN_MTU}: plans with an MTU of 4096 do not run"
    return Finding("cards", item, OK, clean(text), needed=(CARD,))


def _odp(name: str, card: Card) -> Finding:
    supported = card.get("odp", [])
    if not supported:
        hint = "newer firmware; ibv_devinfo -v, rights on /dev/infiniband/uverbs*"
        return Finding("cards", f"{name} ODP", UNKNOWN, "none reported", hint, needed=(CARD,))
    return Finding("cards", f"{name} ODP", OK, ", ".join(each.lower() for each in supported), needed=(CARD,))


def _no_need(finding: Finding) -> Finding:
    return Finding(finding.section, finding.name, finding.state, finding.text, finding.hint)


class _Missing(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "?"
