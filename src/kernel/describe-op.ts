/** What an operation is, in the words of an error message: "create veth weft0123 (peer eth0 in /run/netns/x)". */
import type { Link, Route } from '../base/net-objects.ts';
import type { Op } from './types.ts';

const verbs: Record<string, string> = {
  create: 'create',
  set: 'change',
  delete: 'delete',
  replace: 'set',
  add: 'add',
  append: 'append',
};

export function describeOp(op: Op): string {
  switch (op.op) {
    case 'link.create':
      return `create ${describeNewLink(op.link)}`;
    case 'link.set': {
      const target = 'name' in op.link && op.link.name !== undefined ? op.link.name : `#${op.link.index}`;
      if (op.netns !== undefined) return `move link ${target} to ${op.netns || 'the host'}`;
      if (op.rename !== undefined) return `rename link ${target} to ${op.rename}`;
      const { kind, name, index, ...fields } = op.link;
      return `change link ${target} (${Object.entries(fields)
        .map(([field, value]) => `${field} ${typeof value === 'object' ? JSON.stringify(value) : value}`)
        .join(', ')})`;
    }
    case 'link.delete':
      return `delete link ${op.name}`;
    case 'link.deleteGroup':
      return `delete links of group ${op.group}`;
    case 'conntrack.purge':
      return `purge conntrack entries of ${op.address}`;
    case 'nft.elements': {
      const { action, family, table, set, elements } = op.change;
      if (action === 'flush') return `flush nft set ${family} ${table} ${set}`;
      const preposition = action === 'add' ? 'to' : 'from';
      return `${action} ${elements?.length ?? 0} elements ${preposition} nft set ${family} ${table} ${set}`;
    }
    case 'sysctl.write':
      return `write sysctl ${op.path} = ${op.value}`;
    default: {
      const verb = verbs[op.op.slice(op.op.indexOf('.') + 1)] ?? op.op;
      return `${verb} ${describeObject(op)}`;
    }
  }
}

function describeNewLink(link: Link): string {
  const what = `${link.type ?? 'link'} ${link.name}`;
  if (link.peer) return `${what} (peer ${link.peer.name}${link.peer.netns ? ` in ${link.peer.netns}` : ''})`;
  if (link.vxlan) return `${what} (VNI ${link.vxlan.id}${link.vxlan.dev ? ` over ${link.vxlan.dev}` : ''})`;
  if (link.macvlan) return `${what} (over ${link.macvlan.dev})`;
  return what;
}

type ObjectOp = Extract<
  Op,
  { address: object } | { route: Route } | { rule: object } | { neighbour: object } | { fdb: object }
>;

function describeObject(op: ObjectOp): string {
  switch (op.op) {
    case 'address.replace':
    case 'address.delete':
      return `address ${op.address.address} on ${op.address.dev}`;
    case 'route.replace':
    case 'route.delete':
      return describeRoute(op.route);
    case 'rule.add':
    case 'rule.delete':
      return `rule ${op.rule.priority} (IPv${op.rule.family}${op.rule.table === undefined ? '' : `, table ${op.rule.table}`})`;
    case 'neighbour.replace':
    case 'neighbour.delete':
      return `neighbour ${op.neighbour.dst}${op.neighbour.mac ? ` lladdr ${op.neighbour.mac}` : ''} on ${op.neighbour.dev}`;
    default:
      return `forwarding entry ${op.fdb.mac}${op.fdb.dst ? ` to ${op.fdb.dst}` : ''} on ${op.fdb.dev}`;
  }
}

function describeRoute(route: Route): string {
  const words = [`${route.type ?? ''} route ${route.dst}`.trim()];
  if (route.via !== undefined) words.push(`via ${route.via}`);
  if (route.dev !== undefined) words.push(`dev ${route.dev}`);
  for (const hop of route.nexthops ?? [])
    words.push(`nexthop ${[hop.via, hop.dev].filter(Boolean).join(' dev ')}`);
  if (route.table !== undefined && route.table !== 254) words.push(`table ${route.table}`);
  return words.join(' ');
}
