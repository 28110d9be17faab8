/** Network objects as people know them: one line each, in the words of `ip` and `bridge`. For logs, Events and goldens. */
import type { NetObject, NextHop } from './net-objects.ts';
import { WEFT_PROTOCOL } from './net-objects.ts';

export function formatNetObject(o: NetObject): string {
  switch (o.kind) {
    case 'link':
      return words(
        'link',
        o.name,
        o.type && `type ${o.type}`,
        o.mac && `address ${o.mac}`,
        number('mtu', o.mtu),
        o.up !== undefined && (o.up ? 'up' : 'down'),
        o.master && `master ${o.master}`,
        number('group', o.group),
        o.addrGenMode && `addrgenmode ${o.addrGenMode}`,
        o.vxlan &&
          words(
            `id ${o.vxlan.id} dstport ${o.vxlan.port}`,
            o.vxlan.local && `local ${o.vxlan.local}`,
            o.vxlan.dev && `dev ${o.vxlan.dev}`,
            o.vxlan.learning === false && 'nolearning',
            o.vxlan.udpCsum === false && 'noudpcsum',
          ),
        o.alias && `alias ${o.alias}`,
      );
    case 'address':
      return words(
        'address',
        o.address,
        o.peer && `peer ${o.peer}`,
        `dev ${o.dev}`,
        o.scope && `scope ${o.scope}`,
        o.noDad && 'nodad',
      );
    case 'route':
      return words(
        'route',
        o.type && o.type !== 'unicast' && o.type,
        o.dst,
        hop(o),
        ...(o.nexthops ?? []).map((nexthop) => `nexthop ${hop(nexthop)}`),
        (o.table ?? 254) !== 254 && `table ${o.table}`,
        o.src && `src ${o.src}`,
        o.scope && `scope ${o.scope}`,
        (o.protocol ?? WEFT_PROTOCOL) !== WEFT_PROTOCOL && `proto ${o.protocol}`,
        number('metric', o.metric),
        number('mtu', o.mtu),
      );
    case 'rule':
      return words(
        `rule ${o.priority}:`,
        o.invert && 'not',
        `from ${o.src ?? (o.family === 4 ? 'all' : 'all (v6)')}`,
        o.dst && `to ${o.dst}`,
        o.iif && `iif ${o.iif}`,
        o.oif && `oif ${o.oif}`,
        o.fwmark !== undefined &&
          `fwmark 0x${o.fwmark.toString(16)}${o.fwmask === undefined ? '' : `/0x${o.fwmask.toString(16)}`}`,
        o.action && o.action !== 'lookup' ? o.action : number('lookup', o.table),
      );
    case 'neighbour':
      return words(
        'neighbour',
        o.proxy && 'proxy',
        o.dst,
        `dev ${o.dev}`,
        o.mac && `lladdr ${o.mac}`,
        o.state,
      );
    case 'fdb':
      return words(
        'fdb',
        o.mac,
        `dev ${o.dev}`,
        o.dst && `dst ${o.dst}`,
        number('vlan', o.vlan),
        o.state,
        ...(o.flags ?? []),
      );
  }
}

function hop(o: NextHop): string {
  return words(
    o.via && `via ${o.via}`,
    o.dev && `dev ${o.dev}`,
    o.onlink && 'onlink',
    number('weight', o.weight),
  );
}

const number = (word: string, value: number | undefined): string | false =>
  value !== undefined && `${word} ${value}`;

const words = (...parts: Array<string | false | undefined>): string => parts.filter(Boolean).join(' ');
