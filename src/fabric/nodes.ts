/** Node objects in the narrow form that fabrics read. */
import type { Node } from '../api/types.ts';
import { messageOf, WeftError } from '../base/errors.ts';
import {
  type Cidr,
  canonicalCidr,
  canonicalIp,
  familyOf,
  formatMac,
  type Ip,
  type Mac,
  parseMac,
} from '../base/ip.ts';
import type { FabricNode, FabricProblem } from '../state/fabric-plan.ts';

/** Where a node announces the MAC of its VTEP. */
export const VTEP_MAC_ANNOTATION = 'weft.dev/vtep-mac';

/**
 * The first InternalIP of each family, all pod CIDRs, the announced VTEP MAC. What cannot be read is left out and named:
 * one malformed Node object must not cost the others their routes.
 */
export function fabricNodeOf(node: Node): { node: FabricNode; problems: FabricProblem[] } {
  const name = node.metadata.name;
  const problems: FabricProblem[] = [];
  const read = <T>(what: string, text: string, parse: (text: string) => T): T | undefined => {
    try {
      return parse(text);
    } catch (error) {
      problems.push({
        node: name,
        reason: 'InvalidNode',
        message: `${what} of node ${name}: ${messageOf(error)}`,
      });
      return undefined;
    }
  };

  const nodeIPs: Ip[] = [];
  for (const { type, address } of node.status?.addresses ?? []) {
    if (type !== 'InternalIP') continue;
    const ip = read('InternalIP', address, nodeAddress);
    if (ip !== undefined && !nodeIPs.some((other) => familyOf(other) === familyOf(ip))) nodeIPs.push(ip);
  }

  const podCIDRs: Cidr[] = [];
  // podCIDRs[0] equals podCIDR where both are given (core/v1 NodeSpec).
  const given = node.spec?.podCIDRs ?? (node.spec?.podCIDR ? [node.spec.podCIDR] : []);
  for (const text of given) {
    const cidr = read('podCIDR', text, canonicalCidr);
    if (cidr !== undefined && !podCIDRs.includes(cidr)) podCIDRs.push(cidr);
  }

  const announced = node.metadata.annotations?.[VTEP_MAC_ANNOTATION];
  const mac = announced === undefined ? undefined : read(VTEP_MAC_ANNOTATION, announced, unicastMac);
  const createdAt = node.metadata.creationTimestamp;
  return {
    node: {
      name,
      nodeIPs: nodeIPs.sort((a, b) => familyOf(a) - familyOf(b)),
      podCIDRs,
      ...(mac !== undefined && { vtepMac: mac }),
      ...(createdAt !== undefined && { createdAt }),
    },
    problems,
  };
}

/** @throws WEFT_BAD_ADDRESS for anything a packet cannot be sent to from another machine */
function nodeAddress(text: string): Ip {
  const ip = canonicalIp(text);
  if (/^(127\.|0\.|169\.254\.|2(2[4-9]|[3-5]\d)\.|::1?$|fe[89ab]|ff)/.test(ip)) {
    throw new WeftError('WEFT_BAD_ADDRESS', `${ip} cannot be a node's address`);
  }
  return ip;
}

/** @throws WEFT_BAD_ADDRESS; a multicast or all-zero MAC would make the VXLAN device flood (drivers/net/vxlan) */
function unicastMac(text: string): Mac {
  const bytes = parseMac(text);
  if ((bytes[0]! & 1) === 1 || bytes.every((b) => b === 0))
    throw new WeftError('WEFT_BAD_ADDRESS', `${text} is not a unicast MAC address`);
  return formatMac(bytes);
}
