/**
 * The node's base tables: what makes a pod's address trustworthy, and pods' way out of the cluster.
 *
 * In packet order:
 *  - `arp weft`: pods and their node know each other by permanent neighbours, so ARP has nothing to say on a pod's link.
 *    Answering it would let a pod fill the neighbour table, whose limit all namespaces share, with made-up senders. (IPv6
 *    neighbour discovery comes from link-local addresses, which the next rule drops.)
 *  - `prerouting`: a packet from a pod's link is dropped unless its source is routed to that very link (strict reverse path,
 *    asked of the routing table, so that attaching a pod needs no rule or element). Before conntrack: a forged packet must
 *    not make an entry. Here too: pods send nothing to the encapsulation's port, wherever it goes, for masqueraded, by us or by
 *    a foreign rule, it would come from a node's address and be believed.
 *  - `input`: encapsulated packets are taken from nodes only, for whoever is believed there speaks for any pod.
 *  - `guard`: the same for packets that a DNAT has led to the encapsulation's port. In a chain of the nat type, before all
 *    others of its hook: it sees a connection's first packet only, so that the others do not pay for it.
 *  - `postrouting`: pods' own address ends where the cluster does.
 *
 * Every hook costs every packet about 0.1 µs, which is why there is none on forward.
 *
 * Node lists and prefixes are in sets; the structure depends on {@link NodeFilter.encapPort} and
 * {@link NodeFilter.masquerade} alone.
 */
import { WeftError } from '../../base/errors.ts';
import { canonicalIp, compareIp, familyOf } from '../../base/ip.ts';
import { POD_LINK_GROUP } from '../../base/net-objects.ts';
import type { NodeFilter } from '../../state/fabric-plan.ts';
import type { FilterChain, FilterSet, FilterTable } from './filter-table.ts';
import { disjoint } from './intervals.ts';

const PODS = `0x${POD_LINK_GROUP.toString(16)}`;

/** Named counters, by what they count; `arp weft` has a namespace of its own for names. */
export const COUNTERS = {
  forgedSource: 'forged_source',
  /** What every interface says by itself (router solicitations, MLD): dropped like the forged, but nobody's fault. */
  podLinkLocal: 'pod_link_local',
  encapFromPod: 'encap_from_pod',
  encapFromStranger: 'encap_from_stranger',
  masqueraded: 'masqueraded',
  podArp: 'pod_arp',
} as const;

/** @throws WEFT_BAD_CONFIG, WEFT_BAD_ADDRESS */
export function nodeFilterTables(filter: NodeFilter): FilterTable[] {
  const { encapPort } = filter;
  if (encapPort !== undefined && (!Number.isInteger(encapPort) || encapPort < 1 || encapPort > 65535)) {
    throw new WeftError('WEFT_BAD_CONFIG', `encapsulation port ${encapPort} is not 1–65535`);
  }
  const chains = [prerouting(encapPort), forged];
  if (encapPort !== undefined) chains.push(...encapsulationChains(encapPort));
  if (filter.masquerade) chains.push(postrouting());
  return [
    {
      family: 'inet',
      name: 'weft',
      counters: [
        COUNTERS.forgedSource,
        COUNTERS.podLinkLocal,
        COUNTERS.encapFromPod,
        COUNTERS.encapFromStranger,
        COUNTERS.masqueraded,
      ],
      sets: ([4, 6] as const).flatMap((family) => familySets(filter, family)),
      chains,
    },
    {
      family: 'arp',
      name: 'weft',
      counters: [COUNTERS.podArp],
      sets: [],
      chains: [
        {
          name: 'input',
          hook: { type: 'filter', hook: 'input', priority: 'filter' },
          rules: [`iifgroup ${PODS} counter name ${COUNTERS.podArp} drop`],
        },
      ],
    },
  ];
}

function familySets(filter: NodeFilter, family: 4 | 6): FilterSet[] {
  const vteps = filter.vteps.map(canonicalIp).filter((ip) => familyOf(ip) === family);
  return [
    { name: `pods${family}`, family, interval: true, elements: disjoint(filter.podCIDRs, family) },
    {
      name: `no_masquerade${family}`,
      family,
      interval: true,
      elements: disjoint(filter.noMasquerade, family),
    },
    { name: `vteps${family}`, family, interval: false, elements: [...new Set(vteps)].sort(compareIp) },
  ];
}

function prerouting(encapPort: number | undefined): FilterChain {
  const rules = [`iifgroup ${PODS} fib saddr . iif oif missing jump forged`];
  if (encapPort !== undefined) {
    rules.push(`iifgroup ${PODS} udp dport ${encapPort} counter name ${COUNTERS.encapFromPod} drop`);
  }
  return { name: 'prerouting', hook: { type: 'filter', hook: 'prerouting', priority: 'raw' }, rules };
}

const forged: FilterChain = {
  name: 'forged',
  rules: [
    `ip6 saddr fe80::/10 counter name ${COUNTERS.podLinkLocal} drop`,
    `counter name ${COUNTERS.forgedSource} drop`,
  ],
};

function encapsulationChains(port: number): FilterChain[] {
  const leaving = (proto: 'ip' | 'ip6', family: 4 | 6): string =>
    `udp dport ${port} oifgroup != ${PODS} ${proto} saddr @pods${family} counter name ${COUNTERS.encapFromPod} drop`;
  return [
    {
      name: 'input',
      hook: { type: 'filter', hook: 'input', priority: 'filter' },
      rules: [`udp dport ${port} jump encapsulated`],
    },
    {
      name: 'encapsulated',
      rules: [
        `iifgroup ${PODS} counter name ${COUNTERS.encapFromPod} drop`,
        'ip saddr @vteps4 return',
        'ip6 saddr @vteps6 return',
        `counter name ${COUNTERS.encapFromStranger} drop`,
      ],
    },
    {
      name: 'guard',
      hook: { type: 'nat', hook: 'postrouting', priority: 'srcnat - 1' },
      rules: [leaving('ip', 4), leaving('ip6', 6)],
    },
  ];
}

function postrouting(): FilterChain {
  const leaving = (proto: 'ip' | 'ip6', family: 4 | 6): string =>
    `oifgroup != ${PODS} ${proto} saddr @pods${family} ${proto} daddr != @no_masquerade${family} ` +
    `counter name ${COUNTERS.masqueraded} masquerade fully-random`;
  return {
    name: 'postrouting',
    hook: { type: 'nat', hook: 'postrouting', priority: 'srcnat' },
    rules: [leaving('ip', 4), leaving('ip6', 6)],
  };
}
