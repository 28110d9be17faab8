/**
 * The node's base table, `inet weft`, as text: who may send from where, whose encapsulated packets count, and what is
 * masqueraded. A fixed set of chains over sets; a node that comes or goes is an element, never a rule.
 *
 * In packet order:
 *
 *   prerouting, raw (before conntrack, so that forged packets leave no entry)
 *     from a pod     → source not routed back to that veth: dropped (`fib saddr . iif`, as strict RFC 3704 §2.2 filtering)
 *                    → tunnel port of this or another node: dropped, pods do not encapsulate
 *     encapsulated, to this node → not from a known VTEP: dropped
 *   postrouting, srcnat
 *     this node's pods → neither in the cluster nor excluded: masqueraded
 */
import { familyOf, parseCidr } from '../../base/ip.ts';
import { POD_LINK_GROUP } from '../../base/net-objects.ts';
import type { NodeFilter } from '../../state/fabric-plan.ts';

export const FILTER_TABLE = 'inet weft';

/** A named set as the filter wants it. */
export interface DesiredSet {
  name: string;
  type: 'ipv4_addr' | 'ipv6_addr';
  /** Holds prefixes, which do not overlap. */
  interval: boolean;
  /** Canonical: an address, or `network/length`. Sorted. */
  elements: string[];
}

export interface NodeTable {
  /** Everything but the elements: the same text as long as only nodes come and go. */
  structure: string;
  sets: DesiredSet[];
}

/** Pure. Hosts in `noMasquerade` stand in hash sets, so that thousands of nodes cost neither lookups nor set-up. */
export function renderNodeFilter(filter: NodeFilter): NodeTable {
  const sets = ([4, 6] as const).flatMap((family) => {
    const type = family === 4 ? ('ipv4_addr' as const) : ('ipv6_addr' as const);
    const width = family === 4 ? 32 : 128;
    const ours = (list: readonly string[]): string[] => [...new Set(list.filter((text) => familyOf(text) === family))].sort();
    const isHost = (cidr: string): boolean => parseCidr(cidr).length === width;
    const direct = ours(filter.noMasquerade);
    return [
      { name: `pods${family}`, type, interval: true, elements: ours(filter.podCIDRs) },
      { name: `direct${family}`, type, interval: true, elements: direct.filter((cidr) => !isHost(cidr)) },
      {
        name: `direct_hosts${family}`,
        type,
        interval: false,
        elements: direct.filter(isHost).map((cidr) => parseCidr(cidr).ip),
      },
      { name: `vteps${family}`, type, interval: false, elements: ours(filter.vteps) },
    ];
  });

  const declarations = sets.map(
    ({ name, type, interval }) => `  set ${name} {\n    type ${type}\n${interval ? '    flags interval\n' : ''}  }`,
  );
  const group = `0x${POD_LINK_GROUP.toString(16)}`;
  const port = filter.encapPort;
  const encapsulated =
    port === undefined
      ? []
      : [
          `    udp dport ${port} fib daddr type local counter name pod_encapsulated drop`,
          `    udp dport ${port} ip daddr @vteps4 counter name pod_encapsulated drop`,
          `    udp dport ${port} ip6 daddr @vteps6 counter name pod_encapsulated drop`,
        ];
  const tunnel =
    port === undefined
      ? []
      : [
          `    udp dport ${port} ip saddr != @vteps4 fib daddr type local counter name unknown_vtep drop`,
          `    udp dport ${port} ip6 saddr != @vteps6 fib daddr type local counter name unknown_vtep drop`,
        ];
  const masquerade = filter.masquerade
    ? [
        '    ip saddr @pods4 ip daddr != @direct4 ip daddr != @direct_hosts4 counter name masqueraded masquerade fully-random',
        '    ip6 saddr @pods6 ip6 daddr != @direct6 ip6 daddr != @direct_hosts6 counter name masqueraded masquerade fully-random',
      ]
    : [];

  const structure = [
    `table ${FILTER_TABLE} {`,
    '  comment "Weft: what others change here is put right"',
    ...['forged_source', 'pod_link_local', 'pod_encapsulated', 'unknown_vtep', 'masqueraded'].map(
      (name) => `  counter ${name} {\n  }`,
    ),
    ...declarations,
    '  chain from_pod {',
    // Link-local and unspecified sources (MLD, DAD) are of no use on a routed veth and no attempt at forgery.
    '    ip6 saddr { ::, fe80::/10 } counter name pod_link_local drop',
    '    fib saddr . iif oif missing counter name forged_source drop',
    ...encapsulated,
    '  }',
    '  chain prerouting {',
    '    type filter hook prerouting priority raw; policy accept;',
    `    iifgroup ${group} goto from_pod`,
    ...tunnel,
    '  }',
    '  chain postrouting {',
    '    type nat hook postrouting priority srcnat; policy accept;',
    ...masquerade,
    '  }',
    '}',
    '',
  ].join('\n');
  return { structure, sets };
}

/** `add element` for sets that have any. */
export function elementsText(action: 'add' | 'delete', set: string, elements: readonly string[]): string {
  return elements.length === 0 ? '' : `${action} element ${FILTER_TABLE} ${set} { ${elements.join(', ')} }\n`;
}

/** The table as one transaction that replaces whatever bears its name. */
export function replacementText(table: NodeTable): string {
  return [
    `add table ${FILTER_TABLE}\n`,
    `delete table ${FILTER_TABLE}\n`,
    table.structure,
    ...table.sets.map(({ name, elements }) => elementsText('add', name, elements)),
  ].join('');
}
